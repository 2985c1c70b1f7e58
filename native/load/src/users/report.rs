//! What was measured, as JSON.

use serde::{Deserialize, Serialize};

use crate::account::Accounts;
use crate::fleet::{Chatter, Errors, Logins, Options, total};
use crate::users::Args;
use crate::users::server::{Cost, Memory};

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Version of the tool.
    pub version: String,
    /// Where the users logged in.
    pub urls: Vec<String>,
    /// The XMPP domain.
    pub domain: String,
    /// `anonymous`, or the pattern of the accounts and their mechanism.
    pub accounts: String,
    /// Bytes of a message's text.
    pub body: u32,
    /// What pairs were drawn by.
    pub seed: u64,
    /// Seconds a login or an answer could take.
    pub patience: f64,
    /// One for each number of users.
    pub steps: Vec<Step>,
    /// What the server's memory grew by a user, from the first step to the last.
    pub memory_per_user: Option<Slope>,
    /// Logins that failed, users that fell out, and messages that were lost, doubled,
    /// out of order, damaged or not sent: 0 when all went well.
    pub faults: u64,
}

/// One number of users.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Step {
    /// How many users there were to be.
    pub users: u32,
    /// How they logged in.
    pub logins: Logins,
    /// What that took.
    pub login_cost: Cost,
    /// How they were held.
    pub hold: Hold,
    /// The server's memory after that.
    pub memory: Memory,
    /// The same after a forced garbage collection (`--collect`).
    pub collected: Option<Memory>,
    /// What the generator used after that.
    pub generator: Generator,
    /// How they chattered.
    pub chatter: Option<Chatter>,
    /// What that took.
    pub chatter_cost: Option<Cost>,
    /// How many were logged in at the end.
    pub online: u32,
    /// Users that fell out after that, by kind.
    pub faults: Errors,
}

/// How users were held.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hold {
    /// How many were logged in at its end.
    pub online: u32,
    /// Those that fell out meanwhile or while others logged in, by kind.
    pub errors: Errors,
    /// What it took.
    pub cost: Cost,
}

/// The generator's own memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Worker processes.
    pub workers: u32,
    /// Resident bytes of all of them.
    pub rss: u64,
    /// Resident bytes, what is shared counted once.
    pub pss: u64,
}

/// Bytes a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Of the server's resident bytes.
    pub rss: Option<f64>,
    /// Of its `pss`.
    pub pss: Option<f64>,
    /// Of what its allocators hold, by its own account.
    pub allocated: Option<f64>,
    /// Of what is in use of that.
    pub used: Option<f64>,
}

impl Report {
    pub(super) fn new(args: &Args, options: &Options) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            urls: args.urls.clone(),
            domain: options.target.domain.clone(),
            accounts: match &options.accounts {
                Accounts::Anonymous => "anonymous".into(),
                Accounts::Pattern {
                    user, mechanism, ..
                } => format!("{user} ({mechanism})"),
            },
            body: args.body,
            seed: options.seed,
            patience: options.patience.as_secs_f64(),
            ..Self::default()
        }
    }

    /// Reckons what follows from the steps.
    pub(super) fn finish(&mut self) {
        self.faults = self.steps.iter().map(Step::count_faults).sum();
        if let [first, .., last] = self.steps.as_slice() {
            self.memory_per_user = Slope::between(first, last);
        }
    }

    /// Whether all went well; the error says what did not.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match self.faults {
            0 => Ok(()),
            1 => Err("1 fault: see the report".into()),
            faults => Err(format!("{faults} faults: see the report")),
        }
    }
}

impl Step {
    fn count_faults(&self) -> u64 {
        let fell_out = [&self.logins.errors, &self.hold.errors, &self.faults];
        let fell_out: u64 = fell_out.iter().map(|errors| total(errors)).sum();
        let chatter = self.chatter.as_ref().map_or(0, |chatter| {
            chatter.lost
                + chatter.doubled
                + chatter.disordered
                + chatter.damaged
                + chatter.unsent
                + total(&chatter.errors)
        });
        fell_out + chatter
    }
}

impl Slope {
    fn between(first: &Step, last: &Step) -> Option<Self> {
        let users = f64::from(last.hold.online) - f64::from(first.hold.online);
        let slope = |of: fn(&Memory) -> Option<u64>| {
            let (before, after) = (of(&first.memory)?, of(&last.memory)?);
            (users > 0.0).then_some((after as f64 - before as f64) / users)
        };
        let slopes = Self {
            rss: slope(|memory| memory.rss),
            pss: slope(|memory| memory.pss),
            allocated: slope(|memory| Some(memory.account.as_ref()?.allocated)),
            used: slope(|memory| Some(memory.account.as_ref()?.used)),
        };
        (slopes != Self::default()).then_some(slopes)
    }
}
