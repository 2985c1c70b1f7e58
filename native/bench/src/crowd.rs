//! The users of one site, and what must never happen to them: what does is a fault of the part.

use std::time::Duration;

use megaphone_load::Fleet;
use megaphone_load::account::Accounts;
use megaphone_load::fleet::{Chatter, Errors, Logins, Options};
use megaphone_load::target::Transport;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, sources};
use crate::error::Result;
use crate::figure::Figure;
use crate::hung;
use crate::rig::Site;
use crate::watch::Cpu;

/// The transports, in the order of the document.
pub const TRANSPORTS: [Transport; 3] = [Transport::Bosh, Transport::WebSocket, Transport::C2s];

/// Bytes of a message's body: a short sentence.
pub const BODY: usize = 100;

/// How long a login or a message may take before it counts as lost. Longer than any queue of these loads takes to
/// drain: that a server is slow shows in the latencies.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often logins that stock leaves hanging are tried anew, at most.
const ANEW: usize = 3;

/// The seed of who chats with whom: the same at every site.
const SEED: u64 = 4;

/// The users of one site.
#[derive(Debug)]
pub struct Crowd<'a> {
    bench: &'a Bench,
    fleet: Fleet,
    options: Options,
    /// For people: `BOSH, megaphone`.
    name: String,
    /// See [`hung`].
    may_hang: bool,
}

/// What a transport is called.
pub fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Bosh => "BOSH",
        Transport::WebSocket => "WebSocket",
        Transport::C2s => "c2s",
    }
}

/// What a transport is called in a file's name.
pub fn slug(transport: Transport) -> &'static str {
    match transport {
        Transport::Bosh => "bosh",
        Transport::WebSocket => "websocket",
        Transport::C2s => "c2s",
    }
}

/// Milliseconds for people, of microseconds.
pub fn milliseconds(microseconds: &Figure) -> Figure {
    microseconds.map(|value| value / 1_000.0)
}

impl<'a> Crowd<'a> {
    /// Starts the generator for up to `users` anonymous users of a site; nobody is logged in yet.
    pub fn start(bench: &'a Bench, site: &Site, transport: Transport, users: u32) -> Result<Self> {
        Self::start_with(bench, site, transport, users, PATIENCE)
    }

    /// As [`Crowd::start`], where a login or a message may take so long.
    pub fn start_with(
        bench: &'a Bench,
        site: &Site,
        transport: Transport,
        users: u32,
        patience: Duration,
    ) -> Result<Self> {
        let options = Options {
            target: site.target(transport)?,
            accounts: Accounts::Anonymous,
            sources: sources(users),
            users,
            body: BODY,
            patience,
            seed: SEED,
            program: bench.load.clone(),
        };
        let fleet = Fleet::start(&options)?;
        let name = format!("{}, {}", name(transport), site.side());
        Ok(Self {
            bench,
            fleet,
            options,
            name,
            may_hang: hung::possible(site.side(), transport),
        })
    }

    /// Logs in until there are `users`, as fast as the server answers, and says how the first try of each went. A login
    /// that fails is a fault, but for those that [`hung`] is about: they are tried anew. Blocks.
    pub fn log_in(&mut self, users: u32) -> Result<Logins> {
        let first = self.fleet.log_in(users, None)?;
        let mut last = None;
        for _ in 0..ANEW {
            let logins = last.as_ref().unwrap_or(&first);
            if !self.may_hang || !hung::only(&logins.errors) {
                break;
            }
            self.bench.could_hang(logins);
            if logins.logged_in == logins.tried {
                return Ok(first);
            }
            self.bench.say(format!(
                "{}: {} of {} logins hung",
                self.name,
                logins.tried - logins.logged_in,
                logins.tried
            ));
            last = Some(self.fleet.log_in(users, None)?);
        }
        let logins = last.as_ref().unwrap_or(&first);
        if logins.logged_in < logins.tried {
            self.fault(format!(
                "{} of {} logins failed: {}",
                logins.tried - logins.logged_in,
                logins.tried,
                listed(&logins.errors)
            ));
        }
        Ok(first)
    }

    /// Has random pairs chat: `rate` messages a second for `time`. Blocks until the last has arrived. A message that is
    /// lost, doubled, damaged or out of order is a fault, and so is a user who falls out.
    pub fn chatter(&mut self, rate: f64, time: Duration) -> Result<Chatter> {
        let chatter = self.overload(rate, time)?;
        if chatter.lost > 0 {
            self.fault(format!(
                "{} of {} messages lost at {rate:.0} a second",
                chatter.lost, chatter.sent
            ));
        }
        Ok(chatter)
    }

    /// As [`Crowd::chatter`], at a rate that may be more than the server holds: the caller sees to what is lost.
    pub fn overload(&mut self, rate: f64, time: Duration) -> Result<Chatter> {
        let chatter = self.fleet.chatter(rate, time, 0.0)?;
        for (how, messages) in [
            ("doubled", chatter.doubled),
            ("out of order", chatter.disordered),
            ("damaged", chatter.damaged),
        ] {
            if messages > 0 {
                self.fault(format!(
                    "{messages} of {} messages {how} at {rate:.0} a second",
                    chatter.sent
                ));
            }
        }
        if !chatter.errors.is_empty() {
            self.fault(format!("users fell out: {}", listed(&chatter.errors)));
        }
        Ok(chatter)
    }

    /// Other users in their place: these are gone, with their connections.
    pub fn renew(&mut self, users: u32) -> Result<()> {
        self.fleet = Fleet::start(&self.options)?;
        self.log_in(users)?;
        Ok(())
    }

    /// Logs out until there are `users`. Blocks.
    pub fn log_out(&mut self, users: u32) -> Result<()> {
        Ok(self.fleet.log_out(users)?)
    }

    /// How many are logged in. Those that fell out since the last call are a fault.
    pub fn look(&mut self) -> Result<u32> {
        let (users, errors) = self.fleet.look()?;
        if !errors.is_empty() {
            self.fault(format!("users fell out: {}", listed(&errors)));
        }
        Ok(users)
    }

    /// The generator's processes.
    pub fn pids(&self) -> Vec<u32> {
        self.fleet.pids()
    }

    fn fault(&self, what: String) {
        self.bench.fault(format!("{}: {what}", self.name));
    }
}

fn listed(errors: &Errors) -> String {
    let errors: Vec<String> = errors
        .iter()
        .map(|(kind, count)| format!("{kind} ({count})"))
        .collect();
    errors.join(", ")
}

/// Processor seconds for each of so many things, over several runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cost {
    /// ejabberd's node, or the stand-in.
    pub ejabberd: Figure,
    /// The ECMs.
    pub ecm: Figure,
    /// The load generator.
    pub generator: Figure,
}

impl Cost {
    /// Adds a run in which `count` things happened; `each` of them are the unit.
    pub fn add(&mut self, cpu: &Cpu, count: f64, each: f64) {
        let scale = each / count.max(1.0);
        self.ejabberd.0.push(cpu.ejabberd * scale);
        self.ecm.0.push(cpu.edge * scale);
        self.generator.0.push(cpu.generator * scale);
    }

    /// ejabberd and its ECMs together.
    pub fn both(&self) -> Figure {
        self.ejabberd.plus(&self.ecm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_by_thing_and_adds_up_run_by_run() {
        let mut cost = Cost::default();
        let cpu = Cpu {
            ejabberd: 2.0,
            edge: 0.5,
            generator: 1.0,
            seconds: 4.0,
        };
        cost.add(&cpu, 10_000.0, 1e6);
        cost.add(&cpu, 20_000.0, 1e6);
        assert_eq!(cost.ejabberd, Figure(vec![200.0, 100.0]));
        assert_eq!(cost.both(), Figure(vec![250.0, 125.0]));
        assert_eq!(cost.generator, Figure(vec![100.0, 50.0]));
    }

    #[test]
    fn errors_are_listed_with_their_number() {
        let errors = Errors::from([("refused".to_owned(), 3), ("timeout".to_owned(), 1)]);
        assert_eq!(listed(&errors), "refused (3), timeout (1)");
    }
}
