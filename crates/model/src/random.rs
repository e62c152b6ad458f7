//! The one source of randomness: a seeded generator whose stream and samplers never change, so
//! that a seed printed by any release replays in every later one.

use crate::names::LABEL_LEN_MAX;

/// PCG-XSH-RR 64/32 (O'Neill 2014), with a stream number so that independent purposes draw from
/// independent sequences of the same seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: u64,
    increment: u64,
}

/// How many random characters a generated name ends in.
const NAME_SUFFIX_LEN: usize = 5;
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

impl Random {
    /// The generator for `seed` and a purpose's `stream`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self { state: 0, increment: (stream << 1) | 1 };
        random.next_u32();
        random.state = random.state.wrapping_add(seed);
        random.next_u32();
        random
    }

    /// The generator for `seed` and a purpose named by text (FNV-1a of the name is the stream).
    pub fn for_purpose(seed: u64, purpose: &str) -> Self {
        Self::new(seed, fnv1a(purpose.as_bytes()))
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        let xorshifted = (((old >> 18) ^ old) >> 27) as u32;
        xorshifted.rotate_right((old >> 59) as u32)
    }

    /// The next 64 bits: the first draw is the high half.
    pub fn next_u64(&mut self) -> u64 {
        (u64::from(self.next_u32()) << 32) | u64::from(self.next_u32())
    }

    /// A number in `0..bound`, without bias (Lemire's method); 0 for a bound of 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if (product as u32) >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// A number in `low..=high`; `low` if the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low);
        match u32::try_from(span) {
            Ok(span) if span < u32::MAX => low + u64::from(self.below(span + 1)),
            _ => low + self.next_u64() % span.saturating_add(1).max(1),
        }
    }

    /// `base` changed by up to `percent` of itself either way, whole nanoseconds.
    pub fn jitter(&mut self, base: std::time::Duration, percent: u32) -> std::time::Duration {
        let nanos = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX);
        let swing = nanos / 100 * u64::from(percent.min(100));
        std::time::Duration::from_nanos(self.between(nanos - swing, nanos.saturating_add(swing)))
    }

    /// The name the API server generates for an object with this `generateName`: the prefix, cut
    /// so that the whole fits a label, and [`Random::name_suffix`].
    pub fn generated_name(&mut self, prefix: &str) -> String {
        let mut end = prefix.len().min(LABEL_LEN_MAX - NAME_SUFFIX_LEN);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{}", &prefix[..end], self.name_suffix())
    }

    /// The five-character suffix that Kubernetes gives to generated names: no vowels and no
    /// look-alikes, so that no words appear (`k8s.io/apimachinery/pkg/util/rand`).
    pub fn name_suffix(&mut self) -> String {
        self.name_characters(NAME_SUFFIX_LEN)
    }

    /// `count` characters of the alphabet of generated names.
    pub fn name_characters(&mut self, count: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..count)
            .map(|_| char::from(ALPHABET[self.below(ALPHABET.len() as u32) as usize]))
            .collect()
    }

    /// `count` lower-case hexadecimal digits, as EC2's identifiers end.
    pub fn hex(&mut self, count: usize) -> String {
        const DIGITS: &[u8] = b"0123456789abcdef";
        (0..count).map(|_| char::from(DIGITS[self.below(16) as usize])).collect()
    }

    /// A version 4 UUID in text form.
    pub fn uuid(&mut self) -> String {
        let bits = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        let bits = (bits & !(0xf << 76) | (0x4 << 76)) & !(0b11 << 62) | (0b10 << 62);
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// FNV-1a, 64 bits: the project's one non-cryptographic hash with a value that never changes.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the PCG reference implementation: seed 42, stream 54.
    #[test]
    fn stream_is_the_published_one() {
        let mut random = Random::new(42, 54);
        let drawn: Vec<u32> = (0..6).map(|_| random.next_u32()).collect();
        assert_eq!(
            drawn,
            [0xa15c_02b7, 0x7b47_f409, 0xba1d_3330, 0x83d2_f293, 0xbfa4_784b, 0xcbed_606e]
        );
    }

    /// Frozen: a change here breaks every seed that was ever printed.
    #[test]
    fn samplers_are_frozen() {
        let mut random = Random::for_purpose(1, "names");
        let drawn = (random.name_suffix(), random.uuid(), random.hex(17), random.between(10, 20));
        let again = {
            let mut random = Random::for_purpose(1, "names");
            (random.name_suffix(), random.uuid(), random.hex(17), random.between(10, 20))
        };
        assert_eq!(drawn, again);
        assert_eq!(drawn.1.as_bytes()[14], b'4');
        assert!(matches!(drawn.1.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }

    #[test]
    fn ranges_hold() {
        let mut random = Random::new(7, 7);
        for _ in 0..1_000 {
            assert!((3..=9).contains(&random.between(3, 9)));
            let jittered = random.jitter(std::time::Duration::from_secs(10), 20);
            assert!((8..=12).contains(&jittered.as_secs()));
        }
        assert_eq!(random.between(5, 5), 5);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn fnv1a_known_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
