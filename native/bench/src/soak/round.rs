//! One round: all log in, chat, come and go, and log out; then rest.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use megaphone_load::Fleet;
use megaphone_load::account::Accounts;
use megaphone_load::fleet::{Chatter, Options, total};
use megaphone_load::target::Transport;

use super::look::Look;
use crate::bench::{Bench, sources};
use crate::crowd::{BODY, TRANSPORTS, name};
use crate::error::{Error, Result};
use crate::rig::Site;

/// How long a login or a message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a node that chats, at most: a short round has [`LOOKS`].
const PAUSE: Duration = Duration::from_secs(30);

/// See [`PAUSE`].
const LOOKS: u32 = 10;

/// How long a node may take to come to rest: longer than `max_inactivity` of mod_bosh, which ends sessions whose
/// clients said no goodbye.
const REST: Duration = Duration::from_secs(150);

/// Nothing has changed in a node at rest for so long.
const QUIET: Duration = Duration::from_secs(6);

/// What the generator says of a BOSH user whose farewell nobody answers: ejabberd lays a request aside that overtakes
/// the one before it, as docs/load.md has it, and to who leaves nobody writes any more.
const LATE: &str = "timed out: logging out";

/// If one farewell in so many stays without an answer, that is more than a race explains.
const ONE_IN: u64 = 200;

/// What a round is to be.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// From 1.
    pub number: usize,
    /// Users of each transport.
    pub users: u32,
    /// Messages a second of each.
    pub rate: f64,
    /// Comings and goings a second of each.
    pub churn: f64,
    /// How long they chat.
    pub chatter: Duration,
    /// Erlang processes of the node when nobody had ever come.
    pub empty: u64,
}

/// What came of a round.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Its number.
    pub number: usize,
    /// Logins, those that came in others' place among them.
    pub logins: u64,
    /// Messages sent.
    pub sent: u64,
    /// BOSH users whose farewell stayed without an answer, by ejabberd's fault.
    pub late: u64,
    /// What went wrong, in words.
    pub faults: Vec<String>,
    /// While they chatted.
    pub chatting: Vec<Look>,
    /// When all had left and the garbage was collected.
    pub rest: Look,
}

/// The users.
pub struct Crowds(Vec<(Transport, Fleet)>);

impl Crowds {
    /// Starts the generators; nobody is logged in yet.
    pub fn start(bench: &Bench, site: &Site, users: u32, seed: u64) -> Result<Self> {
        let start = |&transport: &Transport| -> Result<(Transport, Fleet)> {
            let options = Options {
                target: site.target(transport)?,
                accounts: Accounts::Anonymous,
                sources: sources(users),
                users,
                body: BODY,
                patience: PATIENCE,
                seed,
                program: bench.load.clone(),
            };
            Ok((transport, Fleet::start(&options)?))
        };
        TRANSPORTS
            .iter()
            .map(start)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// One round. `keep` gets each look as it is made. Blocks.
    pub fn round(
        &mut self,
        site: &Site,
        asked: &Asked,
        mut keep: impl FnMut(&str, &Look) -> Result<()>,
    ) -> Result<Round> {
        let mut round = Round {
            number: asked.number,
            ..Round::default()
        };
        for (transport, fleet) in &mut self.0 {
            let logins = fleet.log_in(asked.users, None)?;
            round.logins += u64::from(logins.logged_in);
            if total(&logins.errors) > 0 {
                round.fault(*transport, format!("logins failed: {:?}", logins.errors));
            }
        }
        self.chat(site, asked, &mut round, &mut keep)?;
        for (_, fleet) in &mut self.0 {
            fleet.log_out(0)?;
        }
        rest(site, asked.empty, &mut round)?;
        round.rest = Look::at(site, true)?;
        keep("rest", &round.rest)?;
        Ok(round)
    }

    fn chat(
        &mut self,
        site: &Site,
        asked: &Asked,
        round: &mut Round,
        keep: &mut impl FnMut(&str, &Look) -> Result<()>,
    ) -> Result<()> {
        let pause = PAUSE.min(asked.chatter / LOOKS);
        let results = thread::scope(|scope| -> Result<Vec<(Transport, Chatter)>> {
            let threads: Vec<_> = self
                .0
                .iter_mut()
                .map(|(transport, fleet)| {
                    let chat = || fleet.chatter(asked.rate, asked.chatter, asked.churn);
                    (*transport, scope.spawn(chat))
                })
                .collect();
            let mut last = Instant::now();
            while !threads.iter().any(|(_, thread)| thread.is_finished()) {
                sleep(Duration::from_millis(100));
                if last.elapsed() >= pause {
                    last = Instant::now();
                    let look = Look::at(site, false)?;
                    keep("chatter", &look)?;
                    round.chatting.push(look);
                }
            }
            let join = |(transport, thread): (Transport, thread::ScopedJoinHandle<'_, _>)| {
                let chatter = thread.join();
                let chatter = chatter.map_err(|_| Error::from("a generator's thread died"))?;
                Ok((transport, chatter?))
            };
            threads.into_iter().map(join).collect()
        })?;
        for (transport, chatter) in results {
            round.sent += chatter.sent;
            round.logins += chatter.joined;
            round.judge(transport, &chatter);
        }
        Ok(())
    }
}

impl Round {
    fn fault(&mut self, transport: Transport, what: impl std::fmt::Display) {
        self.faults.push(format!("{}: {what}", name(transport)));
    }

    fn judge(&mut self, transport: Transport, chatter: &Chatter) {
        for (how, messages) in [
            ("lost", chatter.lost),
            ("doubled", chatter.doubled),
            ("out of order", chatter.disordered),
            ("damaged", chatter.damaged),
        ] {
            if messages > 0 {
                let sent = chatter.sent;
                self.fault(transport, format!("{messages} of {sent} messages {how}"));
            }
        }
        let mut errors = chatter.errors.clone();
        let late = errors.get(LATE).copied().unwrap_or(0);
        if transport == Transport::Bosh && late * ONE_IN <= chatter.left {
            errors.remove(LATE);
            self.late += late;
        }
        if !errors.is_empty() {
            self.fault(transport, format!("users fell out: {errors:?}"));
        }
        if chatter.joined == 0 {
            self.fault(transport, "nobody came or went");
        }
    }
}

/// Waits until nobody is left and processes get no fewer. That somebody stays is a fault; what stays is judged later.
fn rest(site: &Site, empty: u64, round: &mut Round) -> Result<()> {
    let began = Instant::now();
    let mut since = Instant::now();
    let mut fewest = u64::MAX;
    while began.elapsed() < REST {
        let look = Look::at(site, false)?;
        if look.processes < fewest {
            (fewest, since) = (look.processes, Instant::now());
        }
        if look.sessions == 0 && since.elapsed() >= QUIET {
            return Ok(());
        }
        sleep(Duration::from_millis(500));
    }
    let look = Look::at(site, false)?;
    round.faults.push(format!(
        "no rest within {REST:?}: {} sessions, {} processes (there were {empty} before anybody came)",
        look.sessions, look.processes
    ));
    Ok(())
}
