//! What was seen, counted while it happens and told at the end.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

/// Counters of the whole run, shared by all its tasks.
#[derive(Debug, Default)]
pub struct Counters {
    pub opened: AtomicU64,
    pub finished: AtomicU64,
    pub left: AtomicU64,
    pub refused: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub longest_pause: AtomicU64,
    pub dials: AtomicU64,
    pub dials_refused: AtomicU64,
    pub cuts: AtomicU64,
    pub freezes: AtomicU64,
    pub to_node: AtomicU64,
    pub to_ecm: AtomicU64,
    faults: AtomicU64,
    first_fault: Mutex<Option<Fault>>,
    failed: Notify,
    latencies: Histogram,
}

/// One thing that must not have happened.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    pub connection: u64,
    /// Bytes that had come back right.
    pub position: u64,
    pub what: String,
}

/// What is told at the end. Bytes, and microseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    pub connections: u64,
    /// Whole: all came back, and then the end.
    pub finished: u64,
    /// Closed or reset by the client itself before all had come back.
    pub left: u64,
    pub refused: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub bytes_to_node: u64,
    pub bytes_to_ecm: u64,
    pub dials: u64,
    pub dials_refused: u64,
    pub cuts: u64,
    pub freezes: u64,
    pub longest_pause_us: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    pub faults: u64,
    pub first_fault: Option<Fault>,
}

impl Counters {
    /// Counts a fault. The first is kept and told at once.
    pub fn fault(&self, fault: Fault) {
        self.faults.fetch_add(1, Relaxed);
        let mut first = self
            .first_fault
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        if first.is_none() {
            println!("FAULT {fault}");
            *first = Some(fault);
            self.failed.notify_one();
        }
    }

    /// Waits until something has gone wrong. For one waiter.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Has anything gone wrong yet?
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// From a write's last byte to when it was back.
    pub fn latency(&self, took: Duration) {
        self.latencies.add(micros(took));
    }

    /// For so long a client waited for something that was its due.
    pub fn pause(&self, took: Duration) {
        self.longest_pause.fetch_max(micros(took), Relaxed);
    }

    /// The whole run so far.
    pub fn report(&self, seed: u64, took: Duration) -> Report {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        Report {
            seed,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            connections: count(&self.opened),
            finished: count(&self.finished),
            left: count(&self.left),
            refused: count(&self.refused),
            bytes_sent: count(&self.sent),
            bytes_received: count(&self.received),
            bytes_to_node: count(&self.to_node),
            bytes_to_ecm: count(&self.to_ecm),
            dials: count(&self.dials),
            dials_refused: count(&self.dials_refused),
            cuts: count(&self.cuts),
            freezes: count(&self.freezes),
            longest_pause_us: count(&self.longest_pause),
            p50_us: self.latencies.quantile(0.5),
            p99_us: self.latencies.quantile(0.99),
            max_us: self.latencies.quantile(1.0),
            faults: self.faults(),
            first_fault: self
                .first_fault
                .lock()
                .unwrap_or_else(|broken| broken.into_inner())
                .clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection {} at byte {}: {}",
            self.connection, self.position, self.what
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(f, "seed         {} ({} s)", self.seed, self.seconds)?;
        writeln!(
            f,
            "connections  {}: {} whole, {} left early by the client, {} refused",
            self.connections, self.finished, self.left, self.refused
        )?;
        writeln!(
            f,
            "bytes        {} sent, {} back and right",
            self.bytes_sent, self.bytes_received
        )?;
        writeln!(
            f,
            "latency      p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; longest pause {:.1} ms",
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.max_us),
            ms(self.longest_pause_us)
        )?;
        writeln!(
            f,
            "links        {} dials and {} refused, {} cuts, {} freezes, {} bytes to the node, {} to the ECM",
            self.dials,
            self.dials_refused,
            self.cuts,
            self.freezes,
            self.bytes_to_node,
            self.bytes_to_ecm
        )?;
        match &self.first_fault {
            None => write!(f, "faults       none"),
            Some(first) => write!(f, "faults       {}; the first: {first}", self.faults),
        }
    }
}

/// Microseconds in buckets that are at most 1/16 wide of what they hold.
#[derive(Debug)]
struct Histogram {
    buckets: Vec<AtomicU64>,
    most: AtomicU64,
}

/// Buckets for each power of two.
const STEPS: u64 = 16;

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..=bucket(u64::MAX)).map(|_| AtomicU64::new(0)).collect();
        Self {
            buckets,
            most: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Relaxed);
        self.most.fetch_max(value, Relaxed);
    }

    /// The upper end of the bucket that holds it; 0 when nothing was counted.
    fn quantile(&self, part: f64) -> u64 {
        let all: u64 = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum();
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        let most = self.most.load(Relaxed);
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= wanted {
                return upper_end(index).min(most);
            }
        }
        most
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = u64::from(value.ilog2() - STEPS.ilog2());
    ((shift + 1) * STEPS + (value >> shift) - STEPS) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match power {
        0 => step,
        _ => ((u128::from(STEPS + step + 1) << (power - 1)) - 1).min(u64::MAX.into()) as u64,
    }
}

fn micros(took: Duration) -> u64 {
    took.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_is_narrow() {
        for value in (0..10_000).chain([1 << 40, u64::MAX]) {
            let index = bucket(value);
            assert!(upper_end(index) >= value, "{value}");
            assert!(index == 0 || upper_end(index - 1) < value, "{value}");
            assert!(upper_end(index) - value <= value / STEPS, "{value}");
        }
    }

    #[test]
    fn quantiles_of_what_was_counted() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), 0);
        (1..=1000).for_each(|value| histogram.add(value));
        assert!((500..=532).contains(&histogram.quantile(0.5)));
        assert!((990..=1000).contains(&histogram.quantile(0.99)));
        assert_eq!(histogram.quantile(1.0), 1000);
    }

    #[test]
    fn the_first_fault_is_the_one_that_is_told() {
        let counters = Counters::default();
        for connection in [4, 5] {
            counters.fault(Fault {
                connection,
                position: 1,
                what: "gone".to_owned(),
            });
        }
        let report = counters.report(1, Duration::from_secs(1));
        assert_eq!(report.faults, 2);
        assert!(
            report
                .to_string()
                .ends_with("2; the first: connection 4 at byte 1: gone")
        );
        assert!(
            serde_json::to_string(&report)
                .unwrap()
                .contains(r#""connection":4"#)
        );
    }
}
