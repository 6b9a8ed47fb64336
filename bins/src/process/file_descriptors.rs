//! File descriptors: the program raises their limit as far as the system allows, and reserves descriptors for each part
//! before anything is opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::Failure;

/// The descriptors of a program itself: standard streams, log, runtime, listeners, files and name lookups.
pub const OWN: Need = Need { of: "the program itself", descriptors: 64 };

/// The descriptors that a part of a program may need at the same time.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Need {
    /// The name of the part.
    pub of: &'static str,
    /// The number of descriptors.
    pub descriptors: usize,
}

/// Raises the soft limit to the hard limit.
///
/// # Errors
/// [`Failure::Usage`] if the limit is too low for any program.
pub(crate) fn raise() -> Result<(), Failure> {
    /// The soft limit to ask for if there is no hard limit. The system rejects a soft limit above its own limit.
    const UNLIMITED: u64 = 10_240;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(UNLIMITED).max(current.unwrap_or(UNLIMITED));
    // If the system rejects the new limit, the present limit may still be enough.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    left_of(limit(), &[OWN], 0).map(drop)
}

/// Reserves the descriptors that a program needs, and returns how many are left for clients. Logs these numbers.
///
/// # Errors
/// [`Failure::Usage`] if fewer than `clients` would be left.
pub fn reserve(needs: &[Need], clients: usize) -> Result<usize, Failure> {
    let limit = limit();
    let left = left_of(limit, needs, clients)?;
    tracing::info!(limit, reserved = limit - left, left, "file descriptors");
    Ok(left)
}

fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn left_of(limit: usize, needs: &[Need], clients: usize) -> Result<usize, Failure> {
    let needed: usize = needs.iter().map(|need| need.descriptors).sum();
    if limit >= needed + clients {
        return Ok(limit - needed);
    }
    let mut parts: Vec<_> = needs.iter().map(|need| format!("{} for {}", need.descriptors, need.of)).collect();
    if clients > 0 {
        parts.push(format!("{clients} for clients"));
    }
    Err(Failure::Usage(format!(
        "the limit of open files is {limit} (`ulimit -Hn`, LimitNOFILE=); accepted: {} or more: {}",
        needed + clients,
        parts.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_too_few_descriptors_names_the_parts() {
        let needs = [OWN, Need { of: "PostgreSQL", descriptors: 18 }];
        assert_eq!(left_of(114, &needs, 32).ok(), Some(32));
        let error = left_of(113, &needs, 32).expect_err("a descriptor is missing").to_string();
        assert!(
            error.contains("is 113 ")
                && error.ends_with("114 or more: 64 for the program itself, 18 for PostgreSQL, 32 for clients"),
            "{error}"
        );
    }
}
