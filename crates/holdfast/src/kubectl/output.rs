//! How objects are shown.

use std::str::FromStr;

use super::jsonpath::Template;

/// The forms of `-o`.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// What a template says.
    JsonPath(Template),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(template) = word.strip_prefix("jsonpath=") {
            return template.parse().map(Output::JsonPath);
        }
        match word {
            "wide" => Ok(Output::Wide),
            "json" => Ok(Output::Json),
            "yaml" => Ok(Output::Yaml),
            "name" => Ok(Output::Name),
            _ => Err(format!(
                "unable to match a printer suitable for the output format {word:?}, \
                              allowed formats are: json, jsonpath=TEMPLATE, name, wide, yaml"
            )),
        }
    }
}

impl Output {
    /// The server makes a table of it.
    pub fn is_table(&self) -> bool {
        matches!(self, Output::Table | Output::Wide)
    }
}
