//! The picture: the run on one scale, bars for the clocks and a mark for each thing that happened.

/// The width of the picture in characters.
const WIDTH: usize = 40;

/// A scale of time from the cut on.
pub(crate) struct Scale {
    to_ms: u64,
}

impl Scale {
    /// A scale that shows up to `ms`, ending at a round number.
    pub(crate) fn up_to(ms: u64) -> Self {
        let mut unit = 100;
        loop {
            for step in [1, 2, 5] {
                // Four steps: the axis has a number at each.
                if 4 * step * unit >= ms.max(1) {
                    return Scale { to_ms: 4 * step * unit };
                }
            }
            unit *= 10;
        }
    }

    /// Where it ends, in milliseconds.
    pub(crate) fn end_ms(&self) -> u64 {
        self.to_ms
    }

    fn column(&self, ms: i64) -> Option<usize> {
        let ms = u64::try_from(ms).unwrap_or(0);
        (ms <= self.to_ms).then(|| (ms as usize * (WIDTH - 1)) / self.to_ms as usize)
    }

    /// The numbers along the top.
    pub(crate) fn axis(&self) -> String {
        let mut line = String::new();
        for quarter in 0..=4u64 {
            let at = self.to_ms * quarter / 4;
            let label = (at as f64 / 1000.0).to_string();
            let label = if quarter == 4 { format!("{label} s") } else { label };
            let column = WIDTH * quarter as usize / 4;
            let column = if quarter == 4 { WIDTH.saturating_sub(label.len()) } else { column };
            if line.len() < column || line.is_empty() {
                line = format!("{line:column$}{label}");
            }
        }
        line
    }

    /// A bar from the cut to `ms`; an open end where the time is not on the scale or never came.
    pub(crate) fn bar(&self, ms: Option<u64>) -> String {
        let column = ms.and_then(|ms| self.column(i64::try_from(ms).unwrap_or(i64::MAX)));
        match column {
            Some(column) => format!("{}▌{}", "█".repeat(column), "·".repeat(WIDTH - 1 - column)),
            None => format!("{}▶", "█".repeat(WIDTH - 1)),
        }
    }

    /// A mark at `ms`; what is past the end is marked as such.
    pub(crate) fn mark(&self, ms: i64) -> String {
        match self.column(ms) {
            Some(column) => format!("{}●{}", "·".repeat(column), "·".repeat(WIDTH - 1 - column)),
            None => format!("{}▶", "·".repeat(WIDTH - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (ms, to) in [(0, 400), (400, 400), (401, 800), (1624, 2000), (2001, 4000), (60_000, 80_000)] {
            assert_eq!(Scale::up_to(ms).to_ms, to, "{ms}");
        }
    }

    #[test]
    fn every_line_has_the_same_width() {
        let scale = Scale::up_to(2000);
        for line in [
            scale.axis(),
            scale.bar(Some(0)),
            scale.bar(Some(2000)),
            scale.bar(Some(u64::MAX)),
            scale.bar(None),
            scale.mark(-5),
            scale.mark(1000),
            scale.mark(i64::MAX),
        ] {
            assert_eq!(line.chars().count(), WIDTH, "{line}");
        }
        assert_eq!(scale.axis().trim_end(), "0         0.5       1         1.5    2 s");
    }
}
