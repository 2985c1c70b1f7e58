//! The closed and the open loop.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::plan::Plan;
use super::pool::{News, Pool};
use super::url::Url;
use super::{Args, Report};
use crate::fleet::Errors;
use crate::generator::{Begun, Window, histogram, record, resolve};

/// The longest wait for something to happen: what ended is opened again in time.
const TURN: Duration = Duration::from_millis(50);

/// What is seen while requests go out.
#[derive(Debug)]
struct Seen {
    from: Instant,
    until: Instant,
    /// Whether a request belongs to the window when it was due in it, or when it is answered in it.
    by_due: bool,
    latency: Histogram<u64>,
    answered: u64,
    /// Requests that were sent and neither answered nor failed.
    outstanding: u64,
    errors: Errors,
}

/// Runs one load. Blocks until it is over. The error is for a person.
pub fn run(args: &Args, url: &Url) -> Result<Report, String> {
    let address = resolve(&url.address)?;
    let mut pool = Pool::new(address, url.request(), args.connections).map_err(text)?;
    open_all(&mut pool, args.connections, args.patience)?;
    let begin = Instant::now();
    let from = begin + args.warm_up;
    let mut seen = Seen {
        from,
        until: from + args.time,
        by_due: args.rate.is_some(),
        latency: histogram(),
        answered: 0,
        outstanding: 0,
        errors: Errors::new(),
    };
    let free = (0..args.connections).collect();
    let (window, plan) = match args.rate {
        None => (closed(args, &mut pool, &mut seen)?, None),
        Some(rate) => {
            let plan = Plan::new(begin, rate, args.warm_up + args.time);
            let (window, plan) = open(args, &mut pool, &mut seen, plan, free)?;
            (window, Some(plan))
        }
    };
    let measured = match args.rate {
        None => window.seconds,
        Some(_) => args.time.as_secs_f64(),
    };
    Ok(Report {
        url: args.url.clone(),
        connections: args.connections,
        rate: args.rate,
        answered: seen.answered,
        per_second: seen.answered as f64 / measured,
        latency: (&seen.latency).into(),
        late: plan.as_ref().map_or(0, |plan| plan.late),
        queued: plan.as_ref().map_or(0, |plan| plan.queued),
        errors: seen.errors,
        window,
    })
}

/// Opens all connections. The error says how many could not be, and why.
pub fn open_all(pool: &mut Pool, count: usize, patience: Duration) -> Result<(), String> {
    let give_up = Instant::now() + patience;
    let (mut opened, mut errors) = (0, Errors::new());
    while opened < count {
        let mut news = |_: &mut Pool, _, news| match news {
            News::Opened => opened += 1,
            News::Failed { kind, .. } => *errors.entry(kind).or_default() += 1,
            News::Answered { .. } => {}
        };
        pool.turn(TURN, &mut news).map_err(text)?;
        if Instant::now() > give_up {
            let errors = crate::generator::error_list(&errors);
            return Err(format!(
                "only {opened} of {count} connections could be opened in {patience:?}; errors: {errors}"
            ));
        }
    }
    Ok(())
}

fn closed(args: &Args, pool: &mut Pool, seen: &mut Seen) -> Result<Window, String> {
    for number in 0..args.connections {
        pool.send(number, Instant::now());
    }
    let mut window = None;
    loop {
        let now = Instant::now();
        if window.is_none() && now >= seen.from {
            let begun = Begun::now(&args.server_pids)?;
            seen.begin(begun.at(), args.time);
            window = Some(begun);
        }
        if window.is_some() && now >= seen.until {
            break;
        }
        let wait = seen.wait(now);
        let mut news = |pool: &mut Pool, number, news| {
            let now = Instant::now();
            seen.note(&news, now);
            if pool.is_free(number) {
                pool.send(number, now);
            }
        };
        pool.turn(wait, &mut news).map_err(text)?;
    }
    window.ok_or("the window never began")?.end()
}

fn open(
    args: &Args,
    pool: &mut Pool,
    seen: &mut Seen,
    mut plan: Plan,
    mut free: VecDeque<usize>,
) -> Result<(Window, Plan), String> {
    let timer = Timer::new(pool).map_err(text)?;
    let (mut begun, mut window) = (None, None);
    loop {
        let now = Instant::now();
        if begun.is_none() && window.is_none() && now >= seen.from {
            begun = Some(Begun::now(&args.server_pids)?);
        }
        if now >= seen.until
            && let Some(begun) = begun.take()
        {
            window = Some(begun.end()?);
        }
        send_due(pool, seen, &mut plan, &mut free);
        let over = plan.left() == 0 && seen.outstanding == 0 && window.is_some();
        if over || now >= seen.until + args.patience {
            break;
        }
        // With no free connection, an answer is what is waited for.
        if let Some(due) = plan.due().filter(|_| !free.is_empty()) {
            timer.set(due.saturating_duration_since(Instant::now()));
        }
        let wait = seen.wait(now);
        let mut news = |pool: &mut Pool, number, news| {
            seen.note(&news, Instant::now());
            seen.outstanding -= match news {
                News::Answered { .. } | News::Failed { due: Some(_), .. } => 1,
                News::Opened | News::Failed { due: None, .. } => 0,
            };
            if pool.is_free(number) {
                free.push_back(number);
            }
        };
        pool.turn(wait, &mut news).map_err(text)?;
    }
    let unanswered = plan.left() + seen.outstanding;
    if unanswered > 0 {
        *seen.errors.entry("unanswered".into()).or_default() += unanswered;
    }
    let window = window.ok_or("the window never began")?;
    Ok((window, plan))
}

/// Sends what is due, as far as there are free connections, each in its turn.
fn send_due(pool: &mut Pool, seen: &mut Seen, plan: &mut Plan, free: &mut VecDeque<usize>) {
    loop {
        let now = Instant::now();
        let Some(due) = plan.due().filter(|due| *due <= now) else {
            return;
        };
        let Some(number) = free.pop_front() else {
            return plan.stuck();
        };
        // One that ended while it was free is here in vain.
        if pool.is_free(number) {
            pool.send(number, due);
            plan.sent(now);
            seen.outstanding += 1;
        }
    }
}

impl Seen {
    /// The window begins only now: what was counted before is not in it.
    fn begin(&mut self, now: Instant, time: Duration) {
        (self.from, self.until) = (now, now + time);
        self.latency.reset();
        self.answered = 0;
    }

    fn note(&mut self, news: &News, now: Instant) {
        match news {
            News::Opened => {}
            News::Failed { kind, .. } => *self.errors.entry(kind.clone()).or_default() += 1,
            News::Answered { due, status, .. } if (200..300).contains(status) => {
                let when = if self.by_due { *due } else { now };
                if (self.from..self.until).contains(&when) {
                    self.answered += 1;
                    record(&mut self.latency, now.saturating_duration_since(*due));
                }
            }
            News::Answered { status, .. } => {
                *self.errors.entry(format!("status {status}")).or_default() += 1;
            }
        }
    }

    /// How long to wait at most: to the next end of the window, or a while.
    fn wait(&self, now: Instant) -> Duration {
        let ends = [self.from, self.until];
        let next = ends.into_iter().find(|end| *end > now);
        next.map_or(TURN, |end| TURN.min(end - now))
    }
}

/// Wakes a [`Pool`] more exactly than the milliseconds of epoll_wait(2).
struct Timer(OwnedFd);

impl Timer {
    fn new(pool: &Pool) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let token = Token(usize::MAX);
        let mut source = SourceFd(&timer.as_raw_fd());
        pool.registry()
            .register(&mut source, token, Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Wakes once, after `time`. A timer that cannot be set only makes requests late, and that is
    /// counted.
    fn set(&self, time: Duration) {
        // Nothing at all would stop it.
        let time = time.max(Duration::from_nanos(1));
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: time.as_secs() as i64,
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec);
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
