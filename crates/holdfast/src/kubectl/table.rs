//! Tables, as kubectl prints them: columns by what the server defines, three spaces between.

use serde_json::Value;

/// Prints rows, remembering how wide the columns have become, so that later rows stand under earlier ones.
#[derive(Debug, Default)]
pub struct TablePrinter {
    /// Show the columns for those who want to know more.
    pub wide: bool,
    /// Show the namespace in front.
    pub with_namespace: bool,
    /// What stands before every name, such as `pod/`.
    pub prefix: String,
    /// No line with the columns' names.
    pub no_headers: bool,
    widths: Vec<usize>,
    columns: Vec<usize>,
    printed_header: bool,
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".into(),
        Value::String(text) if text.is_empty() => String::new(),
        // A cell is one line.
        Value::String(text) => text.split(['\n', '\r']).next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

impl TablePrinter {
    /// The lines of a `Table`, the names of the columns before the first.
    pub fn print(&mut self, table: &Value) -> String {
        let definitions = list(table, "columnDefinitions");
        let mut lines = Vec::new();
        // In a watch only the first event defines the columns.
        if !definitions.is_empty() {
            let is_shown =
                |d: &Value| self.wide || d.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0;
            self.columns = (0..definitions.len()).filter(|i| is_shown(&definitions[*i])).collect();
        }
        if !self.printed_header && !self.no_headers {
            let names = self.columns.iter().filter_map(|i| definitions.get(*i)?.get("name")?.as_str());
            let mut header: Vec<String> = names.map(str::to_uppercase).collect();
            if self.with_namespace {
                header.insert(0, "NAMESPACE".into());
            }
            lines.push(header);
        }
        self.printed_header = true;
        for row in list(table, "rows") {
            let cells = list(row, "cells");
            let mut line: Vec<String> = Vec::new();
            for (place, column) in self.columns.iter().enumerate() {
                let text = cells.get(*column).map(cell_text).unwrap_or_default();
                line.push(if place == 0 { format!("{}{text}", self.prefix) } else { text });
            }
            if self.with_namespace {
                let namespace = row.pointer("/object/metadata/namespace").and_then(Value::as_str);
                line.insert(0, namespace.unwrap_or_default().to_owned());
            }
            lines.push(line);
        }
        for line in &lines {
            self.widths.resize(self.widths.len().max(line.len()), 0);
            for (width, text) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(text.chars().count());
            }
        }
        let mut text = String::new();
        for line in lines {
            for (place, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if place + 1 < line.len() {
                    let gap = self.widths[place].saturating_sub(cell.chars().count()) + 3;
                    text.push_str(&" ".repeat(gap));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "a"}}},
                {"cells": ["longer-2", null, "10.0.0.2"], "object": {"metadata": {"namespace": "b"}}}]})
    }

    #[test]
    fn columns_by_priority() {
        let narrow = TablePrinter::default().print(&pods());
        assert_eq!(narrow, "NAME       READY\nweb-1      1/1\nlonger-2   <none>\n");
        let wide =
            TablePrinter { wide: true, with_namespace: true, ..TablePrinter::default() }.print(&pods());
        assert_eq!(
            wide,
            "NAMESPACE   NAME       READY    IP\n\
             a           web-1      1/1      10.0.0.1\n\
             b           longer-2   <none>   10.0.0.2\n"
        );
    }

    #[test]
    fn later_rows_stand_under_earlier_ones() {
        let mut printer = TablePrinter { prefix: "pod/".into(), ..TablePrinter::default() };
        assert!(printer.print(&pods()).starts_with("NAME           READY\npod/web-1      1/1\n"));
        let next = json!({"rows": [{"cells": ["x", "0/1", ""]}]});
        assert_eq!(printer.print(&next), "pod/x          0/1\n");
    }

    #[test]
    fn nonsense_is_no_panic() {
        for table in [json!(null), json!({"rows": 5}), json!({"rows": [{}], "columnDefinitions": [{}]})] {
            drop(TablePrinter { wide: true, ..TablePrinter::default() }.print(&table));
        }
    }
}
