//! The machine and the versions that were measured.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::bench::Bench;

/// What a reader needs to know of where the figures come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// What it is and has, a line each.
    pub lines: Vec<String>,
}

impl Machine {
    /// Looks at the machine. What cannot be found out is `unknown`.
    pub fn look(bench: &Bench) -> Self {
        let run = |program: &str, args: &[&str]| said(bench, program, args);
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown);
        let memory: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
        let otp = "io:put_chars(erlang:system_info(otp_release)), halt().";
        let proxies = run("cat", &["_build/proxies/versions"]);
        let proxy = |name: &str| {
            proxies
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("unknown")
                .to_owned()
        };
        Self {
            lines: vec![
                format!(
                    "{processor}, {cores} cores, {:.0} GB of memory",
                    memory / 1e6
                ),
                format!("{} {}, {}", run("uname", &["-sr"]), debian(), descriptors()),
                format!(
                    "ejabberd {} (Debian's), Erlang/OTP {}",
                    bench.options.ejabberd,
                    run("erl", &["-noshell", "-eval", otp])
                ),
                format!(
                    "{}, {}, {}",
                    proxy("haproxy "),
                    proxy("nginx "),
                    run("rustc", &["--version"])
                ),
                format!("load average when it began: {}", load_average()),
                format!(
                    "{}, commit {}",
                    now(),
                    run("git", &["describe", "--always", "--dirty", "--exclude=*"])
                ),
            ],
        }
    }
}

/// Now, as `2026-11-22 18:00 UTC`.
pub fn now() -> String {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M UTC"])
        .output();
    output.map_or_else(
        |_| unknown(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn said(bench: &Bench, program: &str, args: &[&str]) -> String {
    let output = bench.output(Command::new(program).args(args));
    output.map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':')
        .map(|(_, value)| value.trim().to_owned())
}

fn debian() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(unknown, |name| name.trim_matches('"').to_owned())
}

fn descriptors() -> String {
    let limit = field_of_limits().unwrap_or_else(unknown);
    format!("{limit} open files a process at most")
}

fn field_of_limits() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(4).map(str::to_owned)
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

fn unknown() -> String {
    "unknown".to_owned()
}
