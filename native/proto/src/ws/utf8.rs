//! UTF-8 that comes in pieces: wrong as soon as no byte that could follow would make it right.

use super::Fault;

/// The beginning of a character that was cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    cut: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Checks the next piece.
    ///
    /// # Errors
    /// The text cannot be UTF-8 any more.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while self.len > 0 {
            let Some((&first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            self.cut[usize::from(self.len)] = first;
            self.len += 1;
            match std::str::from_utf8(&self.cut[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Fault::Utf8),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                // Three bytes at most: with a fourth it would be a character, or wrong.
                let cut = &bytes[error.valid_up_to()..];
                self.cut[..cut.len()].copy_from_slice(cut);
                self.len = cut.len() as u8;
                Ok(())
            }
            Err(_) => Err(Fault::Utf8),
        }
    }

    /// The text is over.
    ///
    /// # Errors
    /// Within a character.
    pub fn end(self) -> Result<(), Fault> {
        if self.len == 0 {
            Ok(())
        } else {
            Err(Fault::Utf8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], size: usize) -> Result<(), Fault> {
        let mut utf8 = Utf8::default();
        bytes
            .chunks(size)
            .try_for_each(|piece| utf8.check(piece))
            .and_then(|()| utf8.end())
    }

    #[test]
    fn characters_of_all_lengths_in_pieces_of_any_size() {
        let text = "aé€😀 κόσμε \u{10ffff}\u{d7ff}\u{e000}";
        for size in 1..=text.len() {
            assert_eq!(in_pieces(text.as_bytes(), size), Ok(()));
        }
    }

    #[test]
    fn surrogates_overlong_forms_and_what_is_beyond_are_wrong_at_once() {
        for bad in [
            &b"\xed\xa0"[..],
            b"\xc0",
            b"\xe0\x80",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xf5",
            b"\x80",
            b"\xce\xba\xff",
        ] {
            let mut utf8 = Utf8::default();
            let bytes = bad.chunks(1);
            let results: Vec<_> = bytes.map(|byte| utf8.check(byte)).collect();
            let (last, before) = results.split_last().unwrap();
            assert_eq!(*last, Err(Fault::Utf8), "{bad:x?}");
            assert!(before.iter().all(Result::is_ok), "{bad:x?}");
        }
        assert_eq!(in_pieces(b"\xe2\x82", 1), Err(Fault::Utf8));
    }

    proptest! {
        #[test]
        fn says_what_std_says(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                any::<String>().prop_map(String::into_bytes),
            ],
            size in 1usize..6,
        ) {
            let whole = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(in_pieces(&bytes, size).is_ok(), whole);
        }
    }
}
