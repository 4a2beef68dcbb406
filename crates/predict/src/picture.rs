//! A bar for each time: full up to the shortest, half up to the typical, light up to the longest.

use crate::span::{NEVER, Span};

/// The width of a bar in characters.
const WIDTH: u64 = 40;

/// A scale that ends at a round number.
pub(crate) struct Scale {
    to_ms: u64,
}

impl Scale {
    pub(crate) fn up_to(ms: u64) -> Self {
        let mut unit = 100;
        // Four steps: the axis has a number at each. A day is longer than anything that is drawn.
        while unit < 86_400_000 {
            for step in [1, 2, 5] {
                if 4 * step * unit >= ms.max(1) {
                    return Scale { to_ms: 4 * step * unit };
                }
            }
            unit *= 10;
        }
        Scale { to_ms: 4 * unit }
    }

    fn column(&self, ms: u64) -> u64 {
        ms.min(self.to_ms).saturating_mul(WIDTH) / self.to_ms
    }

    /// The numbers along the top.
    pub(crate) fn axis(&self) -> String {
        let mut line = String::new();
        for quarter in 0..=4_u64 {
            let label = (self.to_ms as f64 * quarter as f64 / 4000.0).to_string();
            let label = if quarter == 4 { format!("{label} s") } else { label };
            let column = (WIDTH * quarter / 4) as usize;
            let column = if quarter == 4 { (WIDTH as usize).saturating_sub(label.len()) } else { column };
            if line.len() < column || line.is_empty() {
                line = format!("{line:column$}{label}");
            }
        }
        line
    }

    /// A bar from one time to another.
    pub(crate) fn bar(&self, begins_ms: u64, ends: Span) -> String {
        let [from, least, typical, most] =
            [begins_ms, ends.min_ms, ends.typical_ms, ends.max_ms].map(|ms| self.column(ms));
        let mut bar = String::new();
        for column in 0..WIDTH {
            bar.push(match column {
                _ if column < from => '·',
                _ if column < least.max(from + u64::from(least == from)) => '█',
                _ if column < typical => '▓',
                _ if column < most => '░',
                _ => '·',
            });
        }
        if ends.typical_ms == NEVER || ends.max_ms > self.to_ms {
            bar.pop();
            bar.push('▶');
        }
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_the_same_width_and_shows_its_three_times() {
        let scale = Scale::up_to(4000);
        assert_eq!(
            scale.bar(0, Span::new(1000, 2000, 3000)),
            format!("{}{}{}{}", "█".repeat(10), "▓".repeat(10), "░".repeat(10), "·".repeat(10))
        );
        for (from, span) in [
            (0, Span::fixed(0)),
            (4000, Span::fixed(4000)),
            (0, Span::fixed(NEVER)),
            (9000, Span::new(1, 2, 9000)),
        ] {
            assert_eq!(scale.bar(from, span).chars().count(), 40, "{span:?}");
        }
        assert_eq!(scale.axis().trim_end(), "0         1         2         3      4 s");
        assert_eq!(Scale::up_to(352_000).axis().trim_end(), "0         100       200       300  400 s");
        assert_eq!(Scale::up_to(NEVER).bar(0, Span::fixed(1)).chars().count(), 40);
    }
}
