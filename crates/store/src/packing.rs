//! Bytes made small in memory as what differs from bytes like them: blocks of LZ4 with a dictionary.
//!
//! Only what this process packed itself is ever unpacked. On the disk and between members all bytes are whole, so no
//! block from outside comes here.

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

/// The bytes as what differs from `base`, which may be empty; none if that takes more than one part in `worth` of them.
pub(crate) fn pack(bytes: &[u8], base: &[u8], worth: usize) -> Option<Box<[u8]>> {
    let packed = compress_with_dict(bytes, base);
    if packed.len() > bytes.len() / worth {
        return None;
    }
    // Tried at once, while the bytes are still there: a mistake that is found when they are unpacked can't be mended.
    let whole = decompress_with_dict(&packed, bytes.len(), base);
    whole.is_ok_and(|whole| whole == bytes).then(|| packed.into_boxed_slice())
}

/// What [`pack`] made small: `length` bytes.
pub(crate) fn unpack(packed: &[u8], base: &[u8], length: usize) -> Bytes {
    match decompress_with_dict(packed, length, base) {
        Ok(bytes) if bytes.len() == length => bytes.into(),
        // The same call gave the whole bytes when they were packed. Going on would hand out what nobody wrote.
        wrong => unreachable!("packed bytes were changed in memory: {:?}", wrong.map(|bytes| bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(base: Vec<u8>, piece: Vec<u8>, times in 0..500usize, end: Vec<u8>) {
            let bytes = [&piece.repeat(times)[..], &base, &end].concat();
            for base in [&base[..], b""] {
                if let Some(packed) = pack(&bytes, base, 1) {
                    prop_assert_eq!(unpack(&packed, base, bytes.len()), bytes.clone());
                }
            }
        }
    }
}
