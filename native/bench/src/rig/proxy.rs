//! haproxy and nginx as TCP proxies, set up as fairly as we know how: as many threads or workers as the ECM has, no
//! logs, nothing that looks into the bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use crate::bench::Bench;
use crate::error::{Error, Result};
use crate::rig::child::Child;
use crate::rig::config::BACKLOG;
use crate::rig::ports;

/// How long one may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that one process of these holds: two open files each, of 20,000.
const CONNECTIONS: u32 = 9_900;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyKind {
    /// Debian's haproxy, `mode tcp`.
    Haproxy,
    /// Debian's nginx, with its `stream` module.
    Nginx,
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// Starts one in front of `backend`. Returns when it takes clients.
    pub fn start(bench: &Bench, kind: ProxyKind, backend: SocketAddr) -> Result<Self> {
        let address = ports::free()?;
        let name = match kind {
            ProxyKind::Haproxy => "haproxy",
            ProxyKind::Nginx => "nginx",
        };
        let folder = bench.output(&mut Command::new("scripts/proxies"))?;
        let folder = Path::new(folder.trim());
        let threads = std::thread::available_parallelism()?.get();
        let config = bench.dir.join(format!("{name}.conf"));
        let text = match kind {
            ProxyKind::Haproxy => haproxy(threads, address, backend),
            ProxyKind::Nginx => nginx(threads, address, backend, folder, &bench.dir)?,
        };
        std::fs::write(&config, text)?;
        let program = folder.join(name);
        let mut child = match kind {
            ProxyKind::Haproxy => {
                let mut command = bench.bound(program);
                command.arg("-db").arg("-f").arg(config);
                Child::start(command, &bench.dir, name)?
            }
            ProxyKind::Nginx => {
                // Its workers outlive a master that is killed, not one that is told to end.
                let mut command = bench.bound_with(program, "TERM");
                command
                    .arg("-e")
                    .arg("stderr")
                    .arg("-p")
                    .arg(&bench.dir)
                    .arg("-c")
                    .arg(config);
                Child::start(command, &bench.dir, name)?.ends_by(Signal::TERM)
            }
        };
        child.wait("listener", PATIENCE, || ports::answers(address))?;
        Ok(Self { child, address })
    }

    /// Where it takes clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its processes: nginx has a master and workers.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let pid = self.child.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(&path).map_err(|error| Error::of(path, error))?;
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(pid).chain(children).collect())
    }
}

fn haproxy(threads: usize, address: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "global\n  nbthread {threads}\n  maxconn {CONNECTIONS}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen edge\n  bind {address} backlog {BACKLOG}\n  server backend {backend}\n"
    )
}

fn nginx(
    threads: usize,
    address: SocketAddr,
    backend: SocketAddr,
    folder: &Path,
    dir: &Path,
) -> Result<String> {
    // As root its workers would be `nobody`.
    let user = if geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let module = find(&folder.join("unpacked"), "ngx_stream_module.so")
        .ok_or_else(|| Error(format!("no stream module in {}", folder.display())))?;
    Ok(format!(
        "load_module {};\n{user}daemon off;\nworker_processes {threads};\nworker_cpu_affinity auto;\n\
         error_log stderr crit;\npid {}/nginx.pid;\n\
         events {{ worker_connections {}; }}\n\
         stream {{\n  access_log off;\n  server {{\n    listen {address} backlog={BACKLOG} reuseport;\n\
         \x20   proxy_pass {backend};\n    proxy_timeout 1h;\n  }}\n}}\n",
        module.display(),
        dir.display(),
        2 * CONNECTIONS,
    ))
}

fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| {
            if path.file_name().is_some_and(|found| found == name) {
                Some(path)
            } else {
                path.is_dir().then(|| find(&path, name)).flatten()
            }
        })
}
