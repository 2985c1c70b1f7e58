//! The users of one load, in as many worker processes as they need.

mod counts;
mod member;
mod sums;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::account::Accounts;
use crate::fleet::member::{Member, Said};
use crate::pace::share;
use crate::target::{Target, Transport};
use crate::usage::Usage;
use crate::wire::{Answer, Begin, Order, Tick};
use rustix::process::{Resource, getrlimit};

pub use counts::{Chatter, Logins, Progress};

/// Errors by kind, with how often each was seen.
pub type Errors = BTreeMap<String, u64>;

/// How many there were of all kinds.
pub fn total(errors: &Errors) -> u64 {
    errors.values().sum()
}

/// What a fleet is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the users log in.
    pub target: Target,
    /// Who they are.
    pub accounts: Accounts,
    /// Source addresses, taken in turn; empty: the system's choice.
    pub sources: Vec<IpAddr>,
    /// How many users there will ever be at a time: decides how many workers there are.
    pub users: u32,
    /// Bytes of a message's body.
    pub body: usize,
    /// How long a login, or an answer, may take.
    pub patience: Duration,
    /// What draws pairs and pauses.
    pub seed: u64,
    /// The `megaphone-load` program, which the workers run.
    pub program: PathBuf,
}

/// Worker processes and their users. When it is dropped the workers end, and with them all
/// connections.
pub struct Fleet {
    members: Vec<Member>,
    answers: Receiver<(usize, Said)>,
    users: u32,
    watch: Option<Watch>,
}

type Watch = Box<dyn FnMut(&Progress) + Send>;

/// Logins that are under way at a time where no rate is given, in the whole fleet.
pub const AT_ONCE: u32 = 64;

/// How long a process of which nothing can be read may take to have ended.
const ENDING: Duration = Duration::from_secs(5);

/// Descriptors that a worker keeps for other things than users.
const SPARE: u64 = 64;

impl Fleet {
    /// Starts the workers; nobody logs in yet. As many as the limit of open files (the hard one)
    /// asks for: a BOSH user needs two connections, all others one.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let each = match options.target.transport {
            Transport::Bosh => 2,
            Transport::C2s | Transport::WebSocket => 1,
        };
        let most = limit.saturating_sub(SPARE).max(each) / each;
        let workers = u64::from(options.users).div_ceil(most).max(1);
        Self::start_with(options, workers as u32)
    }

    /// As [`Fleet::start`], with a given number of workers.
    pub fn start_with(options: &Options, workers: u32) -> Result<Self, Error> {
        let (sender, answers) = mpsc::channel();
        let mut fleet = Self {
            members: Vec::new(),
            answers,
            users: options.users,
            watch: None,
        };
        for number in 0..workers {
            let mut member = Member::start(&options.program, number as usize, sender.clone())?;
            member.tell(&Order::Begin(Box::new(Begin {
                target: options.target.clone(),
                accounts: options.accounts.clone(),
                sources: options.sources.clone(),
                body: options.body,
                patience: options.patience.as_secs_f64(),
                seed: options.seed.wrapping_add(u64::from(number) << 32),
                first: 1 + number,
                stride: workers,
            })))?;
            fleet.members.push(member);
        }
        fleet.gather()?;
        Ok(fleet)
    }

    /// Has somebody told each second how far it is, while [`Fleet::log_in`], [`Fleet::chatter`]
    /// or [`Fleet::log_out`] works.
    pub fn watch(&mut self, watch: impl FnMut(&Progress) + Send + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Logs users in until there are `users` in all, at `rate` a second, or with `rate` `None`
    /// as fast as the server answers, [`AT_ONCE`] at a time. Blocks until the last has ended, well or not.
    /// Those who could not before, or fell out, are tried again.
    pub fn log_in(&mut self, users: u32, rate: Option<f64>) -> Result<Logins, Error> {
        if users > self.users {
            return Err(Error(format!(
                "{users} users are more than the {} the workers were started for",
                self.users
            )));
        }
        if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(Error("logins a second must be more than none".into()));
        }
        let workers = self.members.len() as u64;
        for (number, member) in (0..).zip(&mut self.members) {
            member.tell(&Order::LogIn {
                users: share(users.into(), number, workers) as u32,
                rate: rate.map(|rate| rate / workers as f64),
                offset: rate.map_or(0.0, |rate| number as f64 / rate),
                at_once: share(AT_ONCE.into(), number, workers) as u32,
            })?;
        }
        sums::logins(self.gather()?)
    }

    /// Has random pairs chatter: `rate` messages a second for `time`, after that waits (up to the
    /// patience) for what is under way. `churn` users a second log out and in anew meanwhile.
    /// Blocks. Users who are quiet answer what the protocol asks for at all times.
    ///
    /// Pairs are of the same worker; workers chatter by how many of their users are logged in.
    pub fn chatter(&mut self, rate: f64, time: Duration, churn: f64) -> Result<Chatter, Error> {
        let (online, faults) = self.ask()?;
        let able = |online: u32| if online < 2 { 0.0 } else { f64::from(online) };
        let all: f64 = online.iter().copied().map(able).sum();
        if all == 0.0 && rate > 0.0 {
            let why = sums::list(&faults);
            return Err(Error(format!("fewer than two users are logged in{why}")));
        }
        let seconds = time.as_secs_f64();
        let mut before = 0.0;
        for (member, online) in self.members.iter_mut().zip(online) {
            let part = able(online) / all.max(1.0);
            // Whole messages: those of all workers up to this one, less those of all before it.
            let upto = |part: f64| (rate * seconds * part).round() as u64;
            member.tell(&Order::Chatter {
                rate: rate * part,
                count: upto(before + part) - upto(before),
                seconds,
                churn: churn * part,
                offset: if rate > 0.0 { before / rate } else { 0.0 },
            })?;
            before += part;
        }
        let mut chatter = sums::chatter(self.gather()?)?;
        chatter.rate = rate;
        chatter.seconds = seconds;
        sums::add_errors(&mut chatter.errors, faults);
        Ok(chatter)
    }

    /// Logs users out until there are `users`. Blocks.
    pub fn log_out(&mut self, users: u32) -> Result<(), Error> {
        let workers = self.members.len() as u64;
        for (number, member) in (0..).zip(&mut self.members) {
            member.tell(&Order::LogOut {
                users: share(users.into(), number, workers) as u32,
            })?;
        }
        self.gather().map(drop)
    }

    /// Users that are logged in now, and faults since the last call by kind.
    pub fn look(&mut self) -> Result<(u32, Errors), Error> {
        let (online, faults) = self.ask()?;
        Ok((online.iter().sum(), faults))
    }

    /// Process ids of the workers.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Member::pid).collect()
    }

    /// What the workers have used so far, all together.
    pub fn usage(&mut self) -> Result<Usage, Error> {
        let mut sum = Usage::default();
        for member in &mut self.members {
            let usage = Usage::of(member.pid()).map_err(|error| {
                // There is nothing to read of one that is ending, and then it says so soon.
                match self.answers.recv_timeout(ENDING) {
                    Ok((_, Said::Ended)) => member.ended(),
                    _ => member.failed(&error),
                }
            })?;
            sum.user += usage.user;
            sum.system += usage.system;
            sum.rss += usage.rss;
            sum.pss += usage.pss;
        }
        Ok(sum)
    }

    /// Of each worker, how many of its users are logged in; and what made users fall out.
    fn ask(&mut self) -> Result<(Vec<u32>, Errors), Error> {
        for member in &mut self.members {
            member.tell(&Order::Look)?;
        }
        sums::looks(self.gather()?)
    }

    /// Waits for one answer of each worker.
    fn gather(&mut self) -> Result<Vec<Answer>, Error> {
        let mut answers: Vec<Option<Answer>> = self.members.iter().map(|_| None).collect();
        let mut ticks: Vec<Option<Tick>> = self.members.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            let (number, said) = self
                .answers
                .recv()
                .map_err(|_| Error("no worker is left".into()))?;
            match said {
                Said::Answer(Answer::Failed(why)) => return Err(self.members[number].failed(&why)),
                Said::Answer(Answer::Tick(tick)) => {
                    ticks[number] = Some(tick);
                    self.tell_progress(&answers, &mut ticks);
                }
                Said::Answer(answer) => answers[number] = Some(answer),
                Said::Wrong(why) => return Err(self.members[number].failed(&why)),
                Said::Ended => return Err(self.members[number].ended()),
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// When all who are at work have said how far they are, says so to whoever watches.
    fn tell_progress(&mut self, answers: &[Option<Answer>], ticks: &mut [Option<Tick>]) {
        let mut both = answers.iter().zip(ticks.iter());
        if both.any(|(answer, tick)| answer.is_none() && tick.is_none()) {
            return;
        }
        if let Some(watch) = &mut self.watch {
            watch(&sums::progress(ticks.iter().flatten()));
        }
        // Of those who have answered, the last stands.
        for (answer, tick) in answers.iter().zip(ticks) {
            match (answer, tick) {
                (None, tick) => *tick = None,
                (Some(_), Some(tick)) => tick.latency.clear(),
                _ => {}
            }
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("members", &self.members)
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// A worker that does not do as it is told: the message is for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
