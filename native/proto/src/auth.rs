//! Who may dial: the two proofs that a shared secret is known, without saying it.
//!
//! ```text
//! server = HMAC-SHA256(secret, "megaphone server|" ECM's nonce      "|" ejabberd's nonce)
//! client = HMAC-SHA256(secret, "megaphone client|" ejabberd's nonce "|" ECM's nonce)
//! ```
//!
//! Both nonces stand in both, as written in the hellos, so that neither proof is of use on
//! another link or in the other direction. See RFC 2104 and docs/protocol.md.

use std::fmt::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::limits::{SECRET_MAX, SECRET_MIN};

/// What both ends know and nobody else does. Never shown, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret in a file of this content: all of it but the line's end.
    ///
    /// # Errors
    /// It is shorter or longer than a secret may be.
    pub fn new(content: &[u8]) -> Result<Secret, SecretError> {
        let end = content.iter().rposition(|byte| !b"\r\n".contains(byte));
        let secret = &content[..end.map_or(0, |at| at + 1)];
        match secret.len() {
            len @ ..SECRET_MIN => Err(SecretError::Short { len }),
            SECRET_MIN..=SECRET_MAX => Ok(Secret(secret.into())),
            _ => Err(SecretError::Long),
        }
    }

    /// What ejabberd puts into its hello, in hex.
    pub fn server_proof(&self, ecm_nonce: &str, node_nonce: &str) -> String {
        hex(&self.server(ecm_nonce, node_nonce).finalize().into_bytes())
    }

    /// What the ECM says in `auth`, in hex.
    pub fn client_proof(&self, node_nonce: &str, ecm_nonce: &str) -> String {
        hex(&self.client(node_nonce, ecm_nonce).finalize().into_bytes())
    }

    /// Is this ejabberd's proof? Takes as long for any wrong one.
    pub fn verify_server(&self, ecm_nonce: &str, node_nonce: &str, proof: &str) -> bool {
        verify(self.server(ecm_nonce, node_nonce), proof)
    }

    /// Is this the ECM's proof? Takes as long for any wrong one.
    pub fn verify_client(&self, node_nonce: &str, ecm_nonce: &str, proof: &str) -> bool {
        verify(self.client(node_nonce, ecm_nonce), proof)
    }

    fn server(&self, ecm_nonce: &str, node_nonce: &str) -> Hmac<Sha256> {
        self.mac(["megaphone server", ecm_nonce, node_nonce])
    }

    fn client(&self, node_nonce: &str, ecm_nonce: &str) -> Hmac<Sha256> {
        self.mac(["megaphone client", node_nonce, ecm_nonce])
    }

    fn mac(&self, parts: [&str; 3]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(parts.join("|").as_bytes());
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why something is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    /// It could be guessed.
    #[error("a secret has at least {SECRET_MIN} bytes, this one has {len}")]
    Short {
        /// Bytes without the line's end.
        len: usize,
    },
    /// It is some other file.
    #[error("a secret has at most {SECRET_MAX} bytes, this one has more")]
    Long,
}

fn verify(mac: Hmac<Sha256>, proof: &str) -> bool {
    unhex(proof).is_some_and(|proof| mac.verify_slice(&proof).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let bytes = digits?;
    let bytes = bytes.chunks(2).map(|pair| match pair {
        [high, low] => Some((high * 16 + low) as u8),
        _ => None,
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"correct horse battery staple\r\n").unwrap()
    }

    /// The values are python3's: hmac.new(secret, text, "sha256").hexdigest().
    #[test]
    fn the_proofs_are_those_of_any_other_hmac() {
        assert_eq!(secret().server_proof("aa", "bb"), SERVER);
        assert_eq!(secret().client_proof("bb", "aa"), CLIENT);
    }
    const SERVER: &str = "716d922d8b128be047d0c3e0cb56da59c9f7cb2028d5e86ecc1715eda47fceb2";
    const CLIENT: &str = "b803d51639fd6f9ac0358c9351ddd9c685321c5b74d8dc0dd7eef2428e31d68e";

    #[test]
    fn a_proof_holds_for_its_side_and_nonces_only() {
        let (secret, proof) = (secret(), secret().server_proof("aa", "bb"));
        assert!(secret.verify_server("aa", "bb", &proof));
        assert!(secret.verify_server("aa", "bb", &proof.to_uppercase()));
        assert!(!secret.verify_server("bb", "aa", &proof));
        assert!(!secret.verify_client("aa", "bb", &proof));
        assert!(!secret.verify_server("a", "abb", &proof));
        for wrong in ["", "0", "zz", &proof[..62], &format!("{proof}00")] {
            assert!(!secret.verify_server("aa", "bb", wrong), "{wrong}");
        }
        let other = Secret::new(b"correct horse battery stable").unwrap();
        assert!(!other.verify_server("aa", "bb", &proof));
    }

    #[test]
    fn a_secret_has_its_size_and_is_not_shown() {
        assert_eq!(
            Secret::new(b"fifteen bytes..\n"),
            Err(SecretError::Short { len: 15 })
        );
        assert!(Secret::new(b"sixteen bytes...\n").is_ok());
        assert!(Secret::new(&[b'x'; SECRET_MAX]).is_ok());
        assert_eq!(Secret::new(&[b'x'; SECRET_MAX + 1]), Err(SecretError::Long));
        assert_eq!(Secret::new(b"\n"), Err(SecretError::Short { len: 0 }));
        assert_eq!(format!("{:?}", secret()), "Secret(..)");
    }
}
