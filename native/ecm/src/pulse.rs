//! Whether the other end of a link lives, and how far away it is.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use megaphone_proto::control::Control;
use tokio::time::{Instant, sleep_until};

use crate::link::Link;
use crate::sync::lock;

/// Heartbeat intervals without a byte after which a link is dead.
pub const MISSES_MAX: u32 = 3;

/// When something came last, and how long answers take.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// When something came last: milliseconds since `began`.
    heard: AtomicU64,
    trips: Mutex<Trips>,
}

/// Round trips: from a ping's place in the outbox to its pong.
#[derive(Debug, Default)]
struct Trips {
    pings: u64,
    /// The ping that is measured, while its answer is due.
    asked: Option<(u64, Instant)>,
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    last: Duration,
    smoothed: Duration,
    min: Duration,
}

impl Pulse {
    /// That of a link which has just come up.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(0),
            trips: Mutex::default(),
        }
    }

    /// Notes that something came.
    pub fn hear(&self) {
        let heard = self.began.elapsed().as_millis();
        self.heard
            .store(u64::try_from(heard).unwrap_or(u64::MAX), Relaxed);
    }

    fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Relaxed))
    }

    /// The link has a new transport: what was asked on the old one is no
    /// measure any more.
    pub fn begin_again(&self) {
        lock(&self.trips).asked = None;
        self.hear();
    }

    /// The next ping.
    fn ask(&self) -> Control {
        let mut trips = lock(&self.trips);
        trips.pings += 1;
        let ping = trips.pings;
        trips.asked.get_or_insert_with(|| (ping, Instant::now()));
        let word = ping.to_string();
        Control::Ping { word }
    }

    /// Takes the answer to a ping.
    pub fn answered(&self, word: &str) {
        let mut trips = lock(&self.trips);
        let (Some((asked, at)), Ok(word)) = (trips.asked, word.parse::<u64>()) else {
            return;
        };
        if word == asked {
            trips.times = Some(Times::after(trips.times, at.elapsed()));
        }
        if word >= asked {
            trips.asked = None;
        }
    }
}

impl Times {
    /// Smoothed as TCP does it, an eighth of each new one (RFC 6298, 2.3).
    fn after(before: Option<Self>, last: Duration) -> Self {
        let (smoothed, min) = before.map_or((last, last), |before| {
            ((before.smoothed * 7 + last) / 8, before.min.min(last))
        });
        Self {
            last,
            smoothed,
            min,
        }
    }
}

/// `rtt_us=LAST/SMOOTHED/MIN`, or `rtt_us=none` before the first.
impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match lock(&self.trips).times {
            Some(times) => write!(
                f,
                "rtt_us={}/{}/{}",
                times.last.as_micros(),
                times.smoothed.as_micros(),
                times.min.as_micros()
            ),
            None => f.write_str("rtt_us=none"),
        }
    }
}

/// Asks in each interval whether the other end lives. Returns when nothing
/// came for [`MISSES_MAX`] of them. Version 1 has no way to ask.
pub async fn beat(link: &Link, every: Duration) {
    if link.is_v1() {
        return std::future::pending().await;
    }
    let pulse = link.pulse();
    let mut ping = Instant::now() + every;
    loop {
        let wake = ping.min(pulse.heard() + MISSES_MAX * every);
        sleep_until(wake).await;
        let now = Instant::now();
        if now >= wake + every {
            // It was this program that stood still. What came meanwhile was
            // not even read yet.
            pulse.hear();
        }
        if now >= pulse.heard() + MISSES_MAX * every {
            return;
        }
        if now >= ping {
            ping = now + every;
            link.outbox().ping(|| pulse.ask());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_are_smoothed_and_the_shortest_is_kept() {
        let ms = Duration::from_millis;
        let first = Times::after(None, ms(80));
        assert_eq!((first.smoothed, first.min), (ms(80), ms(80)));
        let second = Times::after(Some(first), ms(160));
        assert_eq!((second.last, second.smoothed), (ms(160), ms(90)));
        assert_eq!(second.min, ms(80));
    }

    #[test]
    fn a_ping_is_measured_until_its_answer_also_past_the_next() {
        let pulse = Pulse::new();
        let measured = || lock(&pulse.trips).times.is_some();
        pulse.answered("1");
        pulse.ask();
        pulse.ask();
        for wrong in ["0", "", "x", "-1"] {
            pulse.answered(wrong);
            assert!(!measured(), "{wrong}");
        }
        pulse.answered("1");
        assert!(measured());
        let times = lock(&pulse.trips).times;
        pulse.answered("2");
        assert_eq!(lock(&pulse.trips).times, times);
    }

    #[test]
    fn a_ping_without_an_answer_is_measured_no_more_once_a_later_one_has_its_own() {
        let pulse = Pulse::new();
        pulse.ask();
        pulse.ask();
        pulse.answered("2");
        assert_eq!(pulse.to_string(), "rtt_us=none");
        pulse.ask();
        pulse.answered("3");
        assert_ne!(pulse.to_string(), "rtt_us=none");
    }

    const EVERY: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_three_intervals_after_what_came_last() {
        let link = crate::link::tests::link(0);
        let began = Instant::now();
        tokio::join!(beat(&link, EVERY), async {
            sleep_until(began + Duration::from_millis(4321)).await;
            link.pulse().hear();
        });
        let noticed = began.elapsed().as_millis();
        assert!((34_321..=34_323).contains(&noticed), "{noticed}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_this_program_stood_still_the_other_end_did_not_die() {
        let link = crate::link::tests::link(0);
        let mut beating = std::pin::pin!(beat(&link, EVERY));
        // Polled once, it sleeps; and then far too long.
        tokio::select! {
            biased;
            () = &mut beating => panic!("given up at once"),
            () = std::future::ready(()) => {}
        }
        tokio::time::advance(10 * EVERY).await;
        let began = Instant::now();
        beating.await;
        let noticed = began.elapsed().as_millis();
        assert!((30_000..=30_003).contains(&noticed), "{noticed}");
    }

    #[test]
    fn a_new_transport_forgets_what_was_asked_on_the_old_one() {
        let pulse = Pulse::new();
        pulse.ask();
        pulse.begin_again();
        pulse.answered("1");
        assert_eq!(pulse.to_string(), "rtt_us=none");
    }
}
