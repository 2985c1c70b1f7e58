//! What the two sides are configured with.

use megaphone_proto::auth::Secret;
use megaphone_proto::limits::MIN_MAX_CONTENT;
use megaphone_proto::link::{LinkConfig, Role};

use super::choice::{Choices, mix};

/// What one side is configured with.
pub struct Config {
    window: u32,
    max_content: u32,
    resume_timeout: u32,
    resume_buffer: usize,
    pub secret: Option<Secret>,
}

impl Config {
    pub fn choose(choices: &mut Choices, secret: &Option<Secret>) -> Config {
        let large = choices.once_in(8);
        let pick = |choices: &mut Choices, among: &[u64]| choices.pick(among).unwrap_or(0);
        let window: &[u64] = if large {
            &[20_000, 100_000]
        } else {
            &[1, 64, 2_000, 9_000]
        };
        Config {
            window: pick(choices, window) as u32,
            max_content: pick(choices, &[0, 1_000]) as u32 + MIN_MAX_CONTENT,
            resume_timeout: pick(choices, &[0, 3, 30, 30, 30, 30, 60, 60]) as u32,
            resume_buffer: pick(
                choices,
                &[0, 700, 9_000, 1 << 24, 1 << 24, 1 << 24, 1 << 24, 1 << 24],
            ) as usize,
            secret: secret.clone(),
        }
    }

    pub fn bounds(&self) -> (usize, u32) {
        (self.resume_buffer, self.window)
    }

    pub fn link_config(&self, role: Role, nonce: u64) -> LinkConfig {
        let nonce = format!("{:016x}{nonce:016x}", mix(nonce));
        LinkConfig {
            window: self.window,
            max_content: self.max_content,
            allow_v1: false,
            // Without a buffer there is nothing to resume with.
            resume_timeout: if self.resume_buffer == 0 {
                0
            } else {
                self.resume_timeout
            },
            secret: self.secret.clone(),
            ..LinkConfig::new(role, "side", nonce)
        }
    }
}
