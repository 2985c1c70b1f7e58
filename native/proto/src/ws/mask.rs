//! The masking of a client's payload (RFC 6455, section 5.3).

/// Takes the mask off `bytes`. The answer is the key for the bytes that follow them.
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
    let mut next = key;
    next.rotate_left(bytes.len() % 4);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_frame() {
        let mut hello = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut hello, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&hello, b"Hello");
    }

    proptest! {
        #[test]
        fn is_the_rfcs_formula_in_pieces_too(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            key: [u8; 4],
            cut in 0usize..100,
        ) {
            let formula = |(i, byte): (usize, &u8)| byte ^ key[i % 4];
            let expected: Vec<u8> = bytes.iter().enumerate().map(formula).collect();
            let mut found = bytes;
            let cut = cut.min(found.len());
            let key = unmask(&mut found[..cut], key);
            unmask(&mut found[cut..], key);
            prop_assert_eq!(found, expected);
        }
    }
}
