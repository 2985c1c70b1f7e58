//! What one connection is going to do: drawn from the seed before it begins.

use std::time::Duration;

use fastrand::Rng;

use crate::stamp::mix;

/// The largest piece that a client writes or reads at once.
const PIECE: u64 = 16_384;

/// One connection's life.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes to send, unless the time is over before.
    pub total: u64,
    pub end: End,
    /// Sizes of writes are drawn up to this.
    pub piece: u64,
    /// Between two writes, on average.
    pub pause: Duration,
    /// Between two reads, on average: a reader that does not keep up.
    pub dawdle: Option<Duration>,
    /// Each write waits until the one before it has come back.
    pub lockstep: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client's end is told as soon as all is sent; what is not back yet must still come.
    HalfClose,
    /// The client's end is told when all is back.
    WhenBack,
    /// Closed after so many bytes came back, whatever is under way.
    Close(u64),
    /// As that, with a reset.
    Reset(u64),
}

/// A generator of its own for each purpose, so that one more draw here changes nothing there.
pub fn rng(seed: u64, purpose: u64) -> Rng {
    Rng::with_seed(mix(seed.wrapping_add(mix(purpose))))
}

impl Plan {
    /// Sizes from one byte to `bytes`, each order of magnitude as often as the others.
    pub fn draw(rng: &mut Rng, bytes: u64, pause: Duration) -> Self {
        let total = skewed(rng, bytes);
        let part = rng.u64(0..=total);
        let end = match rng.u32(0..10) {
            0..5 => End::HalfClose,
            5..8 => End::WhenBack,
            8 => End::Close(part),
            _ => End::Reset(part),
        };
        let dawdle = (rng.u32(0..10) == 0).then(|| pause.mul_f64(2.0 * rng.f64()));
        Self {
            total,
            end,
            piece: skewed(rng, PIECE),
            pause,
            dawdle,
            lockstep: false,
        }
    }

    /// 64 bytes there and back, until the time is over.
    pub fn ping_pong(pause: Duration) -> Self {
        Self {
            total: u64::MAX,
            end: End::WhenBack,
            piece: 64,
            pause,
            dawdle: None,
            lockstep: true,
        }
    }

    /// How many bytes the next write has at most.
    pub fn next_piece(&self, rng: &mut Rng) -> u64 {
        match self.lockstep {
            true => self.piece,
            false => rng.u64(1..=self.piece),
        }
    }

    /// How many bytes the next read takes at most.
    pub fn next_read(&self, rng: &mut Rng) -> usize {
        match self.lockstep {
            true => self.piece as usize,
            false => rng.u64(1..=PIECE) as usize,
        }
    }
}

/// Mostly short, now and then ten times as long; `mean` on average.
pub fn pause(rng: &mut Rng, mean: Duration) -> Duration {
    match rng.u32(0..20) {
        0 => mean.mul_f64(10.0 * rng.f64()),
        _ => mean.mul_f64(1.5 * rng.f64()),
    }
}

/// 1 to `most`, evenly in the logarithm.
fn skewed(rng: &mut Rng, most: u64) -> u64 {
    ((most as f64).powf(rng.f64()) as u64).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let draw = |seed| format!("{:?}", Plan::draw(&mut rng(seed, 1), 100_000, PAUSE));
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn plans_are_of_all_sizes_and_ends() {
        let plans: Vec<Plan> = (0..1000)
            .map(|n| Plan::draw(&mut rng(1, n), 100_000, PAUSE))
            .collect();
        assert!(plans.iter().all(|plan| (1..=100_000).contains(&plan.total)));
        assert!(plans.iter().any(|plan| plan.total < 10));
        assert!(plans.iter().any(|plan| plan.total > 50_000));
        for end in [
            |e| e == End::HalfClose,
            |e| e == End::WhenBack,
            |e| matches!(e, End::Close(_)),
            |e| matches!(e, End::Reset(_)),
        ] {
            assert!(plans.iter().any(|plan| end(plan.end)));
        }
    }
}
