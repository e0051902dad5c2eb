//! The Mersenne twister (MT19937), for the one place where Envoy's choice depends on it: the order in which bounded
//! load tries other hosts.
//!
//! Source: M. Matsumoto and T. Nishimura, "Mersenne Twister", 1998; C++ `std::mt19937`.

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator.
#[derive(Debug)]
pub(crate) struct Mersenne {
    state: [u32; WORDS],
    next: usize,
}

impl Mersenne {
    /// Seeded as `std::mt19937`.
    pub(crate) fn new(seed: u32) -> Mersenne {
        let mut state = [seed; WORDS];
        for i in 1..WORDS {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mersenne { state, next: WORDS }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let word = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if word & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ (word >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A number below a bound of at least 1, each as likely as any other.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let width = (1_u64 << 32) / u64::from(bound);
        loop {
            // Never more than 32 bits.
            let number = (u64::from(self.next()) / width) as u32;
            if number < bound {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_generator_of_the_standard() {
        // ISO C++ [rand.predef]: the 10000th number of the default seed.
        let mut random = Mersenne::new(5489);
        assert_eq!((0..10_000).map(|_| random.next()).last(), Some(4_123_659_995));
    }

    #[test]
    fn numbers_stay_below_the_bound() {
        let mut random = Mersenne::new(1);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(1), 0);
    }
}
