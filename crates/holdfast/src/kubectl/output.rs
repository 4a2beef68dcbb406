//! How objects are shown.

use std::str::FromStr;

/// The forms of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The server's table.
    #[default]
    Table,
    /// With more columns.
    Wide,
    /// Whole objects as JSON.
    Json,
    /// Whole objects as YAML.
    Yaml,
    /// `TYPE/NAME`.
    Name,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "wide" => Ok(Output::Wide),
            "json" => Ok(Output::Json),
            "yaml" => Ok(Output::Yaml),
            "name" => Ok(Output::Name),
            _ => Err(format!(
                "unable to match a printer suitable for the output format {word:?}, \
                              allowed formats are: json, name, wide, yaml"
            )),
        }
    }
}

impl Output {
    /// The server makes a table of it.
    pub fn is_table(self) -> bool {
        matches!(self, Output::Table | Output::Wide)
    }
}
