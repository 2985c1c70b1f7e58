//! The manners of an Erlang port program.
//!
//! stdin brings the configuration and stays open as long as its owner lives:
//! the BEAM holds the other end of the pipe, and the kernel closes it even
//! when the BEAM is killed with -9. See `erlang:open_port/2`.

use std::io::{self, Read};

use crate::config::{CONFIG_MAX, Config};
use crate::wrong::ConfigError;

/// What the configuration's errors call it.
const FILE: &str = "(stdin)";

/// Reads the configuration: 4 bytes of length, big-endian, and the TOML.
///
/// # Errors
/// It is not there, too long, not text, or not valid.
pub fn read_config(input: &mut impl Read) -> Result<Config, ConfigError> {
    let wrong = |reason: String| ConfigError::Read {
        file: FILE.to_owned(),
        reason,
    };
    let cut = |error: io::Error| wrong(format!("the configuration was cut: {error}"));
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(cut)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > CONFIG_MAX {
        return Err(wrong(format!(
            "a configuration may have {CONFIG_MAX} bytes, this one is to have {length}"
        )));
    }
    let mut text = vec![0; length];
    input.read_exact(&mut text).map_err(cut)?;
    let text = String::from_utf8(text).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
    Config::parse(FILE, &text)
}

/// Starts a thread that ends the program, at once and with status 0, when
/// stdin ends: then there is nobody to say anything to.
///
/// # Errors
/// There was no thread to be had.
pub fn die_with_owner() -> io::Result<()> {
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(|| {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            std::process::exit(0);
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Config, String> {
        read_config(&mut bytes).map_err(|error| error.to_string())
    }

    fn with_length(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes(), text].concat()
    }

    #[test]
    fn a_length_and_the_text_are_a_configuration() {
        let text = "[backend]\naddress = \"unix:/x\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\nservice = \"a\"\n";
        assert_eq!(
            read(&with_length(text.as_bytes())).unwrap().listeners.len(),
            1
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            read(b"\0\0").unwrap_err(),
            "(stdin): the configuration was cut: failed to fill whole buffer"
        );
        assert_eq!(
            read(&[0, 0, 0, 5, b'x']).unwrap_err(),
            "(stdin): the configuration was cut: failed to fill whole buffer"
        );
        assert_eq!(
            read(b"link").unwrap_err(),
            "(stdin): a configuration may have 1048576 bytes, this one is to have 1818848875"
        );
        assert_eq!(
            read(&with_length(b"\xff")).unwrap_err(),
            "(stdin): not UTF-8 text"
        );
        assert_eq!(
            read(&with_length(b"links = 0")).unwrap_err(),
            "(stdin):1:9: links: 0 is not a number from 1 to 64"
        );
    }
}
