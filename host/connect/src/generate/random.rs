//! Random numbers that are a function of a seed and a number: SplitMix64 (Steele, Lea, Flood 2014). Not for secrets.

/// A sequence of its own for each pair of seed and number.
pub struct Random(u64);

impl Random {
    /// The sequence of a number.
    pub fn of(seed: u64, number: u64) -> Random {
        // Two rounds, so that neighbouring numbers have unlike sequences.
        let mut random = Random(seed);
        let mixed = random.draw() ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Random(Random(mixed).draw())
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is more than 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// True in this share of cases.
    pub fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && ((self.draw() >> 11) as f64) < share * (1u64 << 53) as f64
    }

    /// One of some texts.
    pub fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len() as u64) as usize]
    }
}
