//! The load itself, step by step.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Options, Progress, total};
use crate::users::Args;
use crate::users::progress::Line;
use crate::users::report::{Generator, Hold, Report, Step};
use crate::users::server::Server;

/// How often it is looked how many are left while they are held.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the load to its end.
pub(super) fn run(args: &Args, options: &Options) -> Result<Report, String> {
    let server = Server::new(args);
    // What cannot be read is to be known before anything is loaded.
    server.check()?;
    let mut load = Load::start(args, options, server)?;
    let mut report = Report::new(args, options);
    for users in &args.users {
        report.steps.push(load.step(*users)?);
    }
    load.begin("logging out");
    load.fleet.log_out(0).map_err(|error| error.to_string())?;
    load.line(|line| line.end());
    report.finish();
    Ok(report)
}

struct Load<'a> {
    args: &'a Args,
    fleet: Fleet,
    server: Server,
    line: Arc<Mutex<Line>>,
}

impl<'a> Load<'a> {
    fn start(args: &'a Args, options: &Options, server: Server) -> Result<Self, String> {
        let fleet = match args.workers {
            Some(workers) => Fleet::start_with(options, workers),
            None => Fleet::start(options),
        };
        let mut fleet = fleet.map_err(|error| error.to_string())?;
        let line = Arc::new(Mutex::new(Line::new(args.quiet)));
        let teller = Arc::clone(&line);
        fleet.watch(move |progress| with(&teller, |line| line.say(progress)));
        Ok(Self {
            args,
            fleet,
            server,
            line,
        })
    }

    fn step(&mut self, users: u32) -> Result<Step, String> {
        let mut step = Step {
            users,
            ..Step::default()
        };
        self.begin("logging in");
        let begun = self.server.begin(&self.fleet)?;
        let logins = self.fleet.log_in(users, self.args.rate);
        step.logins = logins.map_err(|error| error.to_string())?;
        step.login_cost = self.server.end(&self.fleet, &begun)?;
        step.hold = self.hold()?;
        (step.memory, step.collected) = self.server.memory()?;
        step.generator = self.generator()?;
        if let (Some(rate), true) = (self.args.chatter, step.hold.online >= 2) {
            self.begin("chatter");
            let begun = self.server.begin(&self.fleet)?;
            let churn = self.args.churn.unwrap_or(0.0);
            let chatter = self.fleet.chatter(rate, self.args.time, churn);
            step.chatter = Some(chatter.map_err(|error| error.to_string())?);
            step.chatter_cost = Some(self.server.end(&self.fleet, &begun)?);
        }
        (step.online, step.faults) = self.fleet.look().map_err(|error| error.to_string())?;
        Ok(step)
    }

    /// Holds the users. Those who fell out while others logged in count here too.
    fn hold(&mut self) -> Result<Hold, String> {
        self.begin("held");
        let begun = self.server.begin(&self.fleet)?;
        let end = Instant::now() + self.args.hold;
        let mut hold = Hold::default();
        loop {
            let (online, faults) = self.fleet.look().map_err(|error| error.to_string())?;
            hold.online = online;
            for (kind, count) in faults {
                *hold.errors.entry(kind).or_default() += count;
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            let failed = total(&hold.errors);
            self.line(|line| {
                line.say(&Progress {
                    online,
                    failed,
                    ..Progress::default()
                });
            });
            thread::sleep(rest.min(LOOK));
        }
        hold.cost = self.server.end(&self.fleet, &begun)?;
        Ok(hold)
    }

    fn generator(&mut self) -> Result<Generator, String> {
        let usage = self.fleet.usage().map_err(|error| error.to_string())?;
        Ok(Generator {
            workers: self.fleet.pids().len() as u32,
            rss: usage.rss,
            pss: usage.pss,
        })
    }

    fn begin(&self, what: &'static str) {
        self.line(|line| line.begin(what));
    }

    fn line<R>(&self, act: impl FnOnce(&mut Line) -> R) -> R {
        with(&self.line, act)
    }
}

fn with<R>(line: &Mutex<Line>, act: impl FnOnce(&mut Line) -> R) -> R {
    act(&mut line.lock().unwrap_or_else(PoisonError::into_inner))
}
