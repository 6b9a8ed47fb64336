//! A fuzzer checks that the API matches its OpenAPI description.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::installation::{Installation, PATIENCE};

/// Installs Schemathesis in its own Python environment, if it is not installed yet. Returns the path of the program.
fn schemathesis(folder: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = target.join("schemathesis/bin/schemathesis");
    let requirements = folder.join("requirements.txt");
    let installed = target.join("schemathesis/requirements.txt");
    let read = |path: &Path| std::fs::read(path).ok();
    if read(&installed) != read(&requirements) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(target.join("schemathesis")));
        let pip = target.join("schemathesis/bin/pip");
        run(Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements));
        std::fs::copy(&requirements, &installed).expect("copied");
    }
    program
}

fn run(command: &mut Command) -> String {
    let needs = "install Python 3.10 or newer with venv and pip (Debian: python3-venv), and let pip reach its index";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {needs}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}; {needs}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fuzzer_finds_no_difference_between_the_api_and_its_description() {
    let installation = Installation::new().await;
    let _services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for service in ["ingestor", "aggregator", "api"] {
        installation.readiness(service, 200).await;
    }
    let load = [("GENERATOR_EVENTS_PER_SEC", "1000"), ("GENERATOR_DURATION", "2s")];
    let mut generator = installation.generator(&load);
    assert_eq!(generator.code(PATIENCE).await, 0, "{}", generator.stderr());

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let url = format!("http://127.0.0.1:{}/openapi.json", installation.variable("API_HTTP_PORT"));
    let found = tokio::task::spawn_blocking(move || {
        let own = tempfile::tempdir().expect("a folder");
        let program = schemathesis(&folder);
        run(Command::new(program)
            .arg("--config-file")
            .arg(folder.join("schemathesis.toml"))
            .args(["run", &url, "--checks", "all", "--max-examples", "200", "--continue-on-failure"])
            .current_dir(own.path()))
    })
    .await
    .expect("no panic");
    assert!(found.contains("Tested: 3"), "{found}");
    let (status, _) = installation.api("/api/v1/aggregates?granularity=DAY").await.expect("a response");
    assert_eq!(status, 200, "the API still works");
}
