//! What a part measures with.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use megaphone_load::fleet::Logins;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::hung::Hung;
use crate::rig::{Front, LinkKind};

/// How it was asked to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Show that it works, within seconds; the figures mean nothing.
    pub quick: bool,
    /// How often each figure is measured.
    pub runs: usize,
    /// Put perf's and msacc's tables of each window into `_build/bench/profile/`.
    pub profile: bool,
    /// Which of Debian's ejabberds.
    pub ejabberd: String,
    /// The module that serves HTTP on megaphone's side.
    pub front: Front,
    /// What carries links, where both are possible.
    pub link: LinkKind,
    /// megaphone's built application; below the checkout, or anywhere.
    pub built: PathBuf,
}

/// What a part measures with: options, programs, a directory, and a place to say what went wrong.
#[derive(Debug)]
pub struct Bench {
    /// How it was asked to measure.
    pub options: Options,
    /// The checkout.
    pub root: PathBuf,
    /// For everything that the rig writes; removed at the end.
    pub dir: PathBuf,
    /// The `megaphone-load` program.
    pub load: PathBuf,
    /// What ejabberd's `ERL_LIBS` is: ejabberd, its libraries and megaphone.
    pub erl_libs: String,
    /// The compiled `bench/*.erl`.
    pub beams: PathBuf,
    /// megaphone's application as it was when this began: who builds anew meanwhile disturbs nothing but the clock.
    pub built: PathBuf,
    faults: RefCell<Vec<String>>,
    hung: Cell<Hung>,
}

impl Bench {
    /// Finds what is needed below `root`, unpacks ejabberd where that is not done yet, and compiles `bench/*.erl`
    /// into `dir`. Blocks meanwhile.
    pub fn new(options: Options, root: PathBuf, dir: PathBuf) -> Result<Self> {
        let load = std::env::current_exe()?.with_file_name("megaphone-load");
        if !load.exists() {
            return Err(Error(format!(
                "{} is not built: make bench builds it",
                load.display()
            )));
        }
        let mut bench = Self {
            beams: dir.join("beams"),
            built: dir.join("lib/megaphone"),
            options,
            root,
            dir,
            load,
            erl_libs: String::new(),
            faults: RefCell::default(),
            hung: Cell::default(),
        };
        let ejabberd =
            bench.output(Command::new("scripts/ejabberd").arg(&bench.options.ejabberd))?;
        bench.erl_libs = format!("{}:{}", ejabberd.trim(), bench.dir.join("lib").display());
        bench.copy()?;
        bench.compile()?;
        Ok(bench)
    }

    /// Shows that it works within seconds, and nothing more.
    pub fn quick(&self) -> bool {
        self.options.quick
    }

    /// How often each figure is to be measured.
    pub fn runs(&self) -> usize {
        self.options.runs
    }

    /// `full`, or `quick` in the quick form.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick() { quick } else { full }
    }

    /// Something went wrong that makes this part fail, though it goes on: messages were lost, say.
    pub fn fault(&self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("  FAULT: {what}");
        self.faults.borrow_mut().push(what);
    }

    /// The faults since the last call.
    pub fn take_faults(&self) -> Vec<String> {
        self.faults.take()
    }

    /// Logins that could hang were tried; see [`Hung`].
    pub fn could_hang(&self, logins: &Logins) {
        let mut hung = self.hung.get();
        hung.add(logins);
        self.hung.set(hung);
    }

    /// Those since the last call.
    pub fn take_hung(&self) -> Hung {
        self.hung.take()
    }

    /// A line about what is measured now, on standard error; silent in the quick form.
    pub fn say(&self, what: impl AsRef<str>) {
        if !self.quick() {
            eprintln!("  {}", what.as_ref());
        }
    }

    /// Runs `megaphone-load ARGS --json` and reads its report. Blocks until it has ended. That it was not content (bytes
    /// were lost, say) is a fault; the error is that there is no report.
    pub fn load<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let what = format!("megaphone-load {}", args.join(" "));
        let mut command = self.bound(&self.load);
        command.args(args).arg("--json").stdin(Stdio::null());
        let output = command.output().map_err(|error| Error::of(&what, error))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let report = String::from_utf8_lossy(&output.stdout);
        let report = report.lines().last().unwrap_or_default();
        let report = serde_json::from_str(report)
            .map_err(|error| Error(format!("{what}: {error}: {report} {said}")))?;
        if !output.status.success() {
            self.fault(format!("{what}: {said}"));
        }
        Ok(report)
    }

    /// A command for a program that is killed when this one dies.
    pub fn bound(&self, program: impl AsRef<OsStr>) -> Command {
        self.bound_with(program, "KILL")
    }

    /// A command for a program that gets `signal` when this one dies.
    pub fn bound_with(&self, program: impl AsRef<OsStr>, signal: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", signal, "--"])
            .arg(program)
            .current_dir(&self.root);
        command
    }

    /// Runs a command to its end. The error has what it printed on standard error.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        command.current_dir(&self.root).stdin(Stdio::null());
        let what = format!("{command:?}");
        let output = command.output().map_err(|error| Error::of(&what, error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error(format!("{what}: {}: {}", output.status, said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn copy(&self) -> Result<()> {
        let from = self.root.join(&self.options.built);
        std::fs::create_dir_all(&self.built)?;
        // `priv` is a link where rebar3 has made it.
        let mut copy = Command::new("cp");
        copy.arg("-rL")
            .args([from.join("ebin"), from.join("priv")])
            .arg(&self.built);
        self.output(&mut copy).map(drop)
    }

    fn compile(&self) -> Result<()> {
        std::fs::create_dir_all(&self.beams)?;
        let modules = erlang_modules(&self.root.join("bench"))?;
        if !modules.is_empty() {
            let mut erlc = Command::new("erlc");
            erlc.env("ERL_LIBS", &self.erl_libs)
                .arg("-o")
                .arg(&self.beams)
                .args(modules);
            self.output(&mut erlc)?;
        }
        Ok(())
    }
}

/// Source addresses for so many users at one server address: a port that the system chooses is one of some 28,000.
pub fn sources(users: u32) -> Vec<IpAddr> {
    (0..users.div_ceil(10_000).clamp(1, 200))
        .map(|number| {
            IpAddr::V4(Ipv4Addr::new(
                127,
                0,
                1,
                u8::try_from(number + 1).unwrap_or(u8::MAX),
            ))
        })
        .collect()
}

fn erlang_modules(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| Error::of(folder.display(), error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "erl"))
        .collect();
    found.sort();
    Ok(found)
}
