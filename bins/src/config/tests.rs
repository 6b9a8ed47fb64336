//! Tests of variables that belong together.

use super::*;
use crate::process::{EnvError, Variables};

fn problems(values: &[(&str, &str)], read: impl Fn(&mut Variables)) -> String {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut variables = Variables::from_values(values);
    read(&mut variables);
    variables.check().err().unwrap_or_default().iter().map(EnvError::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn defaults_are_accepted() {
    let read = |variables: &mut Variables| {
        Kafka::read(variables);
        let config = postgres(variables, 4, "test");
        read_postgres(variables, &config);
        redis(variables);
        event_limits(variables);
        consumer(variables, "INGESTOR");
        ApiAddresses::read(variables);
        Answers::read(variables);
    };
    assert_eq!(problems(&[], read), "");
}

#[test]
fn a_librdkafka_property_is_passed_through_or_named() {
    let read = |variables: &mut Variables| drop(Kafka::read(variables));
    assert_eq!(problems(&[("KAFKA_OPT_SECURITY_PROTOCOL", "plaintext")], read), "");
    for name in ["KAFKA_OPT_NO_SUCH", "KAFKA_OPT_ENABLE_AUTO_COMMIT", "KAFKA_OPT_AUTO_OFFSET_RESET"] {
        assert!(problems(&[(name, "1")], read).starts_with(name), "{name}");
    }
}

#[test]
fn malformed_brokers_and_topics_are_rejected() {
    let read = |variables: &mut Variables| drop(Kafka::read(variables));
    for brokers in ["one:9092,two:9092", "[::1]:9092", "10.0.0.1:1, b:2"] {
        assert_eq!(problems(&[("KAFKA_BROKERS", brokers)], read), "");
    }
    for brokers in [",", "a:b:c", "host", "host:0", ":9092", "host:9092,"] {
        assert!(problems(&[("KAFKA_BROKERS", brokers)], read).starts_with("KAFKA_BROKERS"), "{brokers}");
    }
    assert!(problems(&[("KAFKA_TOPIC", "bad topic")], read).starts_with("KAFKA_TOPIC"));
}

#[test]
fn equal_values_of_two_variables_that_must_differ_are_a_problem() {
    let read = |variables: &mut Variables| {
        Kafka::read(variables);
        Groups::read(variables);
        let addresses = ApiAddresses::read(variables);
        api_ops(variables, &addresses, 6062);
    };
    for (values, expected) in [
        (
            &[("KAFKA_TOPIC", "t"), ("KAFKA_DLQ_TOPIC", "t")][..],
            r#"KAFKA_DLQ_TOPIC="t": accepted: another topic than KAFKA_TOPIC"#,
        ),
        // The value that is set is named, not the default.
        (&[("KAFKA_TOPIC", "events.telecom.dlq")], "KAFKA_TOPIC="),
        (&[("KAFKA_TOPIC", "t.replayed"), ("KAFKA_DLQ_TOPIC", "t")], "KAFKA_TOPIC="),
        (&[("KAFKA_GROUP_ID_INGESTOR", "g"), ("KAFKA_GROUP_ID_AGGREGATOR", "g")], "KAFKA_GROUP_ID_AGGREGATOR="),
        (&[("KAFKA_GROUP_ID_INGESTOR", "aggregator-group")], "KAFKA_GROUP_ID_INGESTOR="),
        (&[("API_GRPC_PORT", "8000")], r#"API_GRPC_PORT="8000": accepted: another port than API_HTTP_PORT"#),
        (&[("API_HTTP_PORT", "1"), ("API_GRPC_PORT", "1"), ("API_BIND", "::1")], "API_HTTP_PORT="),
        (&[("PPROF_PORT_API", "8000")], r#"PPROF_PORT_API="8000": accepted: another port than API_HTTP_PORT"#),
        (&[("API_GRPC_PORT", "6062"), ("API_BIND", "0.0.0.0")], "API_GRPC_PORT="),
        (&[("API_GRPC_PORT", "6062"), ("OPS_BIND", "::")], "API_GRPC_PORT="),
    ] {
        let problems = problems(values, read);
        assert!(problems.starts_with(expected) && problems.lines().count() == 1, "{values:?}: {problems}");
    }
    for other_address in [("OPS_BIND", "127.0.0.2"), ("API_BIND", "127.0.0.2"), ("API_BIND", "::1")] {
        assert_eq!(problems(&[("PPROF_PORT_API", "8000"), other_address], read), "", "{other_address:?}");
    }
}

#[test]
fn no_problem_shows_a_password() {
    let read = |variables: &mut Variables| {
        postgres(variables, 4, "test");
        redis(variables);
    };
    let shown = problems(&[("DATABASE_URL", "mysql://me:s3cret@host/db"), ("REDIS_URL", "http://:s3cret@h")], read);
    assert!(shown.contains("DATABASE_URL") && shown.contains("REDIS_URL") && !shown.contains("s3cret"), "{shown}");
}
