//! The processor time and the memory of processes, read from `/proc` on Linux.

/// The clock ticks per second in `/proc`, the same on all common architectures.
const TICKS: f64 = 100.0;

/// The peak resident memory of the process, in MiB.
pub(super) fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1_024
}

/// The processor seconds of a process, without its children.
pub(super) fn cpu_seconds(process: u32) -> f64 {
    stat(process).map_or(0.0, |stat| stat.own)
}

/// The process that started `backend`, a session of PostgreSQL. `None` for a server in a container.
pub(super) fn postmaster(backend: i32) -> Option<u32> {
    let backend = u32::try_from(backend).ok()?;
    let name = std::fs::read_to_string(format!("/proc/{backend}/comm")).ok()?;
    (name.trim() == "postgres").then(|| stat(backend)).flatten().map(|stat| stat.parent)
}

/// The processor seconds of the server whose first process is `postmaster`, with its running and its ended children.
pub(super) fn server_cpu_seconds(postmaster: u32) -> Option<f64> {
    let server = stat(postmaster)?;
    let mut children = 0.0;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some(stat) = stat(process).filter(|stat| stat.parent == postmaster) {
            children += stat.own;
        }
    }
    Some(server.own + server.ended_children + children)
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

fn stat(process: u32) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}
