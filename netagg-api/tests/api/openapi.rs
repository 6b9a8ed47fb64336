//! The OpenAPI description: it agrees with the proto and with the accepted parameters. Its page loads only its own files.

use std::collections::BTreeSet;

use netagg_api::proto::FILE_DESCRIPTOR_SET;
use netagg_core::usage::{DEFAULT_DAYS, DEFAULT_LIMIT, MAX_DAYS, MAX_LIMIT, MAX_ZONE_DAYS};
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};

use super::http_client::get;
use super::servers::Servers;

async fn description(servers: &Servers) -> Value {
    let response = get(servers.http, "/openapi.json").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    response.json()
}

/// The names of the members of a schema, including the members of the schemas in `$ref` and `allOf`.
fn members(api: &Value, schema: &Value) -> BTreeSet<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.strip_prefix('#').expect("a reference into the document");
        return members(api, api.pointer(path).unwrap_or_else(|| panic!("{path} is not described")));
    }
    let own = schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys().cloned());
    let others = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| members(api, part));
    own.chain(others).collect()
}

#[tokio::test]
async fn the_description_has_the_names_of_the_proto() {
    let servers = Servers::start().await;
    let api = description(&servers).await;
    assert_eq!(api["openapi"], "3.1.0");
    let proto = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let file = proto.file.iter().find(|file| file.package() == "telecom.v1").expect("the package of the API");
    let fields = |message: &str| -> BTreeSet<String> {
        let message = message.rsplit('.').next().unwrap_or_default();
        let message = file.message_type.iter().find(|known| known.name() == message).expect("a message");
        message.field.iter().map(|field| field.name().to_owned()).collect()
    };

    let operations: Vec<_> = api["paths"].as_object().expect("paths").values().map(|path| &path["get"]).collect();
    let calls: Vec<_> = file.service[0].method.iter().filter(|call| !call.server_streaming()).collect();
    assert_eq!(operations.len(), calls.len());
    for call in calls {
        let operation = operations
            .iter()
            .find(|operation| operation["operationId"] == call.name())
            .unwrap_or_else(|| panic!("{} is not described", call.name()));
        let parameters = operation["parameters"].as_array().expect("parameters").iter();
        let parameters: BTreeSet<_> =
            parameters.map(|parameter| parameter["name"].as_str().expect("a name").to_owned()).collect();
        assert_eq!(parameters, fields(call.input_type()), "{}", call.name());
        let response = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(members(&api, response), fields(call.output_type()), "{}", call.name());
    }
    for message in ["UsageEvent", "AggregateRow"] {
        assert_eq!(members(&api, &api["components"]["schemas"][message]), fields(message), "{message}");
    }
    servers.stopped().await;
}

#[tokio::test]
async fn the_described_parameters_are_the_accepted_parameters() {
    let servers = Servers::start().await;
    let api = description(&servers).await;
    for (path, item) in api["paths"].as_object().expect("paths") {
        let described = item["get"]["parameters"].as_array().expect("parameters").iter();
        let described: BTreeSet<_> = described
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        let response = get(servers.http, &format!("{}?nonsense=1", path.replace("{user_id}", "u"))).await;
        assert_eq!(response.status, 400, "{response:?}");
        let problem = response.problem();
        let errors = problem["errors"].as_array().expect("errors");
        let unknown = errors.iter().find(|error| error["parameter"] == "nonsense").expect("named");
        let accepted: BTreeSet<_> = unknown["accepted"].as_str().expect("a list").split(", ").collect();
        assert_eq!(described, accepted, "{path}");
    }
    servers.stopped().await;
}

#[tokio::test]
async fn the_description_has_the_limits_of_the_library() {
    let servers = Servers::start().await;
    let api = description(&servers).await;
    let operations = api["paths"].as_object().expect("paths").values().map(|path| &path["get"]);
    let parameters: Vec<_> =
        operations.flat_map(|operation| operation["parameters"].as_array().expect("parameters")).collect();
    let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").expect("a limit");
    assert_eq!((&limit["schema"]["minimum"], &limit["schema"]["maximum"]), (&json!(1), &json!(MAX_LIMIT)), "{limit}");
    for (name, text) in [
        ("limit", format!("Default: {DEFAULT_LIMIT};")),
        ("from", format!("Default: {DEFAULT_DAYS} days before `to`")),
        ("from", format!("the range has {DEFAULT_DAYS} days")),
        ("to", format!("has at most {MAX_DAYS} days.")),
        ("to", format!("in a zone other than UTC, it has at most {MAX_ZONE_DAYS} days")),
    ] {
        let is_described = |parameter: &Value| {
            let description = parameter["description"].as_str().unwrap_or_default().replace('\n', " ");
            parameter["name"] == name && description.contains(&text)
        };
        assert!(parameters.iter().any(|parameter| is_described(parameter)), "{name}: {text}");
    }
    servers.stopped().await;
}

#[tokio::test]
async fn the_page_loads_only_its_own_files() {
    let servers = Servers::start().await;
    assert_eq!(get(servers.http, "/docs").await.header("location"), Some("/docs/"));
    let page = get(servers.http, "/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    let links: Vec<_> =
        page.body.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css")).collect();
    assert!(links.len() > 3, "{}", page.body);
    for link in links {
        let path = link.strip_prefix("./").unwrap_or(link);
        assert!(!path.contains(':') && !path.starts_with('/'), "{link} is outside /docs/");
        let part = get(servers.http, &format!("/docs/{path}")).await;
        assert_eq!(part.status, 200, "{link}");
        assert_eq!(part.header("x-content-type-options"), Some("nosniff"));
    }
    let initializer = get(servers.http, "/docs/swagger-initializer.js").await.body;
    assert!(initializer.contains("/openapi.json"), "{initializer}");
    servers.stopped().await;
}
