//! API keys in a file, for an API that cannot write to a database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use netagg_core::{BoxError, Error, Timestamp};
use serde::{Deserialize, Serialize};

use super::api_key::{ApiKey, KeyId};
use super::api_keys::ApiKeys;
use super::principal::Principal;

/// Stores keys in a file, with one JSON object per line. Each change replaces the whole file, so a reader sees all of the
/// change or none. Writers wait for each other. A new file is readable only by its owner. Later changes keep the owner, the group
/// and the mode of the file.
#[derive(Clone, Debug)]
pub struct ApiKeyFile {
    path: Arc<Path>,
}

impl ApiKeyFile {
    /// The keys in the file at `path`. The first created key creates the file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into() }
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, Error> {
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || work(&path)).await;
        done.map_err(|error| Error::internal("api_keys", error))?.map_err(|error| match error {
            FileError::Io(error) => Error::unavailable("api_keys", error),
            FileError::Refused(reason) => Error::Refused { dependency: "api_keys", source: reason.into() },
            FileError::Line(..) => Error::unavailable("api_keys", error),
        })
    }
}

#[async_trait]
impl ApiKeys for ApiKeyFile {
    async fn list(&self) -> Result<Vec<ApiKey>, Error> {
        // A missing file is an error and not an empty list. Otherwise all callers would be rejected without an explanation.
        self.blocking(|path| parse(&fs::read_to_string(path)?)).await
    }

    async fn create(&self, key: &ApiKey) -> Result<(), Error> {
        let key = key.clone();
        self.blocking(move |path| {
            change(path, |keys| {
                if keys.iter().any(|known| known.id == key.id) {
                    return Err(FileError::Refused(format!("there is a key {} already", key.id)));
                }
                keys.push(key);
                Ok(())
            })
        })
        .await
    }

    async fn revoke(&self, id: &KeyId, now: Timestamp) -> Result<bool, Error> {
        let id = id.clone();
        self.blocking(move |path| {
            change(path, |keys| {
                let key = keys.iter_mut().find(|key| key.id == id);
                Ok(key.map(|key| key.revoked_at.get_or_insert(now)).is_some())
            })
        })
        .await
    }
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("the file of API keys cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("line {0} of the file of API keys is not a key: {1}")]
    Line(usize, BoxError),
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    id: KeyId,
    /// The digest, in hexadecimal digits.
    sha256: String,
    #[serde(flatten)]
    principal: Principal,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
}

fn parse(text: &str) -> Result<Vec<ApiKey>, FileError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_line(line).map_err(|error| FileError::Line(index + 1, error))).collect()
}

fn parse_line(line: &str) -> Result<ApiKey, BoxError> {
    let Line { id, sha256, principal, created_at, expires_at, revoked_at } = serde_json::from_str(line)?;
    let digest = digest(&sha256).ok_or("64 hexadecimal digits are accepted as sha256")?;
    Ok(ApiKey { id, digest, principal, created_at, expires_at, revoked_at })
}

fn digest(digits: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn write(mut file: &File, keys: Vec<ApiKey>) -> io::Result<()> {
    for key in keys {
        let ApiKey { id, digest, principal, created_at, expires_at, revoked_at } = key;
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = serde_json::to_vec(&Line { id, sha256, principal, created_at, expires_at, revoked_at })?;
        file.write_all(&[&line, &b"\n"[..]].concat())?;
    }
    file.sync_all()
}

/// Applies `change` to the keys in the file, and replaces the file.
fn change<T>(path: &Path, change: impl FnOnce(&mut Vec<ApiKey>) -> Result<T, FileError>) -> Result<T, FileError> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock = lock_file(&beside(".lock"), path)?;
    lock.lock()?;
    let mut keys = match fs::read_to_string(path) {
        Ok(text) => parse(&text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let changed = change(&mut keys)?;
    let fresh = beside(".new");
    let replaced = replace(path, &fresh, keys);
    if replaced.is_err() {
        // The next change removes the file if this fails.
        let _ = fs::remove_file(&fresh);
    }
    replaced.map(|()| changed)
}

/// The file that writers lock. It is a separate file: a writer that waits for the key file itself would then hold the lock of the
/// replaced file.
fn lock_file(lock: &Path, path: &Path) -> Result<File, FileError> {
    match private().create_new(true).write(true).open(lock) {
        Ok(file) => {
            keep_access(&file, path)?;
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(File::options().write(true).open(lock)?),
        Err(error) => Err(error.into()),
    }
}

/// Writes `keys` to the file `fresh`, and puts it in the place of the file at `path`.
fn replace(path: &Path, fresh: &Path, keys: Vec<ApiKey>) -> Result<(), FileError> {
    // An interrupted change may have left a file with another mode, and another user may have put a link there. A new file is
    // never a link.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = private().create_new(true).write(true).open(fresh)?;
    keep_access(&file, path)?;
    write(&file, keys)?;
    Ok(fs::rename(fresh, path)?)
}

/// Gives `file` the owner, the group and the mode of the file at `path`, if that file exists. Otherwise a change by an
/// administrator would take the file away from an API that runs as another user.
#[cfg(unix)]
fn keep_access(file: &File, path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let old = match fs::metadata(path) {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid())).map_err(|error| {
            FileError::Refused(format!(
                "the new file cannot get the owner {} and the group {} of {}: {error}; change the file as root, or as \
                 its owner if the owner is in this group",
                old.uid(),
                old.gid(),
                path.display()
            ))
        })?;
    }
    Ok(file.set_permissions(old.permissions())?)
}

#[cfg(not(unix))]
fn keep_access(_file: &File, _path: &Path) -> Result<(), FileError> {
    Ok(())
}

/// Options for files that only their owner may read and write.
fn private() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let number = std::sync::atomic::AtomicUsize::new(0);
        let fresh = async || {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let path = folder.path().join(number.to_string());
            fs::write(&path, "\n").expect("written");
            Arc::new(ApiKeyFile::new(path))
        };
        crate::testkit::api_keys(fresh).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_change_keeps_the_mode_and_the_group_of_the_file() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("the mode");
        // Only root may choose a group freely. For another user, the file keeps the group of the user.
        let _ = chown(&path, None, Some(1));
        let access = || fs::metadata(&path).map(|file| (file.uid(), file.gid(), file.mode())).expect("metadata");
        let before = access();
        // An interrupted change has left a file that everybody can read, and the lock is a file of an earlier change.
        fs::write(folder.path().join("keys.new"), "left").expect("written");
        fs::write(folder.path().join("keys.lock"), "").expect("written");
        let token = super::super::api_key::ApiKeyToken::generate().expect("random numbers");
        let file = ApiKeyFile::new(&path);
        file.create(&ApiKey::new(&token, Principal::anybody(), Timestamp::MIN, None)).await.expect("created");
        file.revoke(token.id(), Timestamp::MIN).await.expect("revoked");
        assert_eq!(access(), before);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_change_does_not_follow_a_link_in_the_place_of_the_new_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("keys"), folder.path().join("other"));
        fs::write(&path, "").expect("written");
        fs::write(&other, "other").expect("written");
        std::os::unix::fs::symlink(&other, folder.path().join("keys.new")).expect("a link");
        let token = super::super::api_key::ApiKeyToken::generate().expect("random numbers");
        let file = ApiKeyFile::new(&path);
        file.create(&ApiKey::new(&token, Principal::anybody(), Timestamp::MIN, None)).await.expect("created");
        assert_eq!(fs::read_to_string(&other).expect("read"), "other");
        assert!(fs::symlink_metadata(&path).expect("metadata").is_file());
    }

    #[tokio::test]
    async fn the_first_key_creates_the_file_and_reading_a_missing_file_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let file = ApiKeyFile::new(&path);
        assert!(file.list().await.expect_err("the file is missing").is_retryable());
        let token = super::super::api_key::ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, Principal::anybody(), Timestamp::MIN, None);
        file.create(&key).await.expect("created");
        assert_eq!(file.list().await.expect("listed"), [key]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        }

        let text = fs::read_to_string(&path).expect("read");
        // The secret may contain `_`, too.
        let token = token.reveal();
        let secret = token.splitn(3, '_').nth(2).expect("a secret");
        assert!(!text.contains(secret), "{text}");
        let broken = text.clone() + &text.replace("sha256\":\"", "sha256\":\"+");
        fs::write(&path, broken).expect("written");
        let error = file.list().await.expect_err("an invalid line").to_string();
        assert!(error.contains("line 2") && !error.contains(&text[50..80]), "{error}");
    }
}
