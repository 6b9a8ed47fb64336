//! The crates in a registry other than crates.io: `deploy/publish` uploads them, and a new project downloads them. For crates.io
//! there is only a dry run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::registry::Registry;

/// How long a command may take, also on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// All crates share the version of this crate.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";

#[tokio::test]
async fn crates_are_published_to_a_registry_and_a_new_project_downloads_them() {
    let desk = Desk::new(Registry::start().await).await;
    let registry = &desk.registry;

    let uncommitted = desk.checkout().join("uncommitted");
    std::fs::write(&uncommitted, "").unwrap();
    desk.fails(&["corp"], "commit or stash").await;
    std::fs::remove_file(uncommitted).unwrap();
    desk.fails(&[], "make publish REGISTRY=name").await;
    desk.fails(&["elsewhere"], "[registries.elsewhere]").await;
    desk.succeeds(&["crates-io"], "nothing was uploaded").await;
    desk.succeeds(&["corp"], "nothing was uploaded").await;
    assert_eq!(registry.entries(), [Value::Null; 0], "after a dry run and rejected calls");

    registry.refuse_after(2);
    desk.fails(&["--upload", "corp"], "the registry is out of order").await;
    assert_eq!(registry.entries().len(), 2);
    let output = desk.succeeds(&["--upload", "corp"], "skipping netagg-core").await;
    assert!(!output.contains(Registry::TOKEN), "{output}");
    let entries = registry.entries();
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        ["netagg", "netagg-api", "netagg-core", "netagg-kafka", "netagg-pg", "netagg-redis", "netagg-testkit"]
    );
    desk.succeeds(&["--upload", "corp"], "all crates are in the registry").await;
    assert_eq!(registry.entries().len(), names.len(), "after a run with nothing to do");

    for (place, entry) in entries.iter().enumerate() {
        for dependency in entry["deps"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            if name.starts_with("netagg") {
                assert_eq!(dependency["registry"], Value::Null, "{entry}: {name} is in the same registry");
                assert!(names[..place].contains(&name), "{entry}: {name} was published before");
            } else {
                assert_eq!(dependency["registry"], CRATES_IO, "{entry}: {name} is from crates.io");
            }
        }
    }

    desk.project(&names, "");
    desk.cargo(&["generate-lockfile"]).await;
    let lock = std::fs::read_to_string(desk.project_folder().join("Cargo.lock")).unwrap();
    for name in &names {
        let package = format!("name = \"{name}\"\nversion = \"{VERSION}\"\nsource = \"{}\"\n", registry.index());
        assert!(lock.contains(&package), "{name} does not come from the registry: {lock}");
    }
    desk.project(&["netagg-core"], "drop(netagg_core::memory::MemoryLog::new(\"events\", 1));");
    desk.cargo(&["check"]).await;
}

/// The workplace of a publisher: a registry, a clean checkout of the tested code, a cargo home, and a project that embeds netagg.
#[derive(Debug)]
struct Desk {
    registry: Registry,
    folder: TempDir,
}

impl Desk {
    async fn new(registry: Registry) -> Self {
        let desk = Self { registry, folder: tempfile::tempdir().unwrap() };
        // The checkout has all files that git does not ignore, with changes that are not committed yet.
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        desk.git(&["init", "--quiet", &desk.checkout().display().to_string()]).await;
        let repository = format!("--git-dir={}", desk.checkout().join(".git").display());
        let from = source.display().to_string();
        desk.git(&["-C", &from, &repository, "--work-tree=.", "add", "--all", "."]).await;
        let author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"];
        let commit = [&repository, "commit", "--quiet", "--message=Everything"];
        desk.git(&[author.as_slice(), commit.as_slice()].concat()).await;
        desk.git(&["-C", &desk.checkout().display().to_string(), "reset", "--quiet", "--hard"]).await;

        // The test has its own cargo home, so that it leaves no copies in the cargo home of the user. It links the user's
        // configuration, because this may configure a mirror of crates.io.
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap();
        std::fs::create_dir(desk.cargo_home()).unwrap();
        for file in ["config.toml", "credentials.toml"].map(|name| (home.join(name), desk.cargo_home().join(name))) {
            if file.0.exists() {
                std::os::unix::fs::symlink(file.0, file.1).unwrap();
            }
        }
        desk
    }

    fn checkout(&self) -> PathBuf {
        self.folder.path().join("netagg")
    }

    fn cargo_home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn project_folder(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// Runs `deploy/publish`, which must succeed and print `expected`. Returns its output.
    async fn succeeds(&self, arguments: &[&str], expected: &str) -> String {
        let (succeeded, output) = self.publish(arguments).await;
        assert!(succeeded && output.contains(expected), "{arguments:?}, expected {expected}: {output}");
        output
    }

    /// Runs `deploy/publish`, which must fail and print `expected`.
    async fn fails(&self, arguments: &[&str], expected: &str) {
        let (succeeded, output) = self.publish(arguments).await;
        assert!(!succeeded && output.contains(expected), "{arguments:?}, expected {expected}: {output}");
    }

    /// Runs `deploy/publish`. Returns whether it succeeded, and its output. It does not build the packages, because this would
    /// take minutes.
    async fn publish(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(self.checkout().join("deploy/publish"));
        command.args(arguments);
        if arguments.contains(&"corp") || arguments.contains(&"crates-io") {
            command.arg("--no-verify");
        }
        command.env("CARGO_REGISTRIES_CORP_INDEX", self.registry.index());
        command.env("CARGO_REGISTRIES_CORP_TOKEN", Registry::TOKEN);
        command.env("CARGO_TERM_COLOR", "always"); // CI often sets this.
        self.run(command).await
    }

    /// Writes a project outside of the workspace with these crates of the registry, as described in docs/publishing.md.
    fn project(&self, crates: &[&str], statement: &str) {
        let folder = self.project_folder();
        for subfolder in [".cargo", "src"] {
            std::fs::create_dir_all(folder.join(subfolder)).unwrap();
        }
        let registry = format!("[registries.corp]\nindex = \"{}\"\n", self.registry.index());
        std::fs::write(folder.join(".cargo/config.toml"), registry).unwrap();
        let dependency = |name: &&str| format!("{name} = {{ version = \"{VERSION}\", registry = \"corp\" }}\n");
        let dependencies: String = crates.iter().map(dependency).collect();
        let package = "[package]\nname = \"embedder\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[dependencies]\n";
        std::fs::write(folder.join("Cargo.toml"), format!("{package}{dependencies}")).unwrap();
        std::fs::write(folder.join("src/main.rs"), format!("fn main() {{ {statement} }}\n")).unwrap();
    }

    /// Runs cargo in the project.
    async fn cargo(&self, arguments: &[&str]) {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(self.project_folder());
        command.env("CARGO_TARGET_DIR", self.project_folder().join("target"));
        let (succeeded, output) = self.run(command).await;
        assert!(succeeded, "cargo {arguments:?}: {output}");
    }

    async fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments);
        let (succeeded, output) = self.run(command).await;
        assert!(succeeded, "git {arguments:?}: {output}");
    }

    /// Runs a command to its end, without the user's git configuration. Returns whether it succeeded, and its output.
    async fn run(&self, mut command: Command) -> (bool, String) {
        command.env("CARGO_HOME", self.cargo_home()).env("GIT_CONFIG_GLOBAL", "/dev/null").kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .expect("the command ends")
            .expect("the command starts");
        let texts = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&texts).into_owned())
    }
}
