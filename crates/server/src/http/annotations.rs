//! What the parts that look at a request have to say for its audit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;

use serde_json::Value;

/// The most that one request's annotations may have, in bytes, keys included: what policies say is theirs to choose.
const MOST: usize = 64 << 10;

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

#[derive(Default)]
struct Notes {
    size: usize,
    notes: BTreeMap<String, Note>,
}

enum Note {
    /// Texts that stand one after the other.
    Texts(Vec<String>),
    /// A list in JSON.
    Items(Vec<Value>),
}

/// Runs a request; the second answer is what there is to say of it.
pub(crate) async fn collect<F: Future>(request: F) -> (F::Output, BTreeMap<String, String>) {
    NOTES
        .scope(RefCell::default(), async {
            let output = request.await;
            let notes = NOTES.with(RefCell::take).notes;
            let told = |note: Note| match note {
                Note::Texts(texts) => texts.join(", "),
                Note::Items(items) => Value::Array(items).to_string(),
            };
            (output, notes.into_iter().map(|(key, note)| (key, told(note))).collect())
        })
        .await
}

/// Says something of the request that is answered here. Several texts under one key stand one after the other.
pub(crate) fn annotate(key: impl Into<String>, text: impl Into<String>) {
    let text = text.into();
    add(key.into(), text.len(), |note| match note.get_or_insert(Note::Texts(Vec::new())) {
        Note::Texts(texts) if !texts.contains(&text) => texts.push(text),
        Note::Texts(_) | Note::Items(_) => {}
    });
}

/// Likewise, one more item of a list.
pub(crate) fn annotate_item(key: &str, item: Value) {
    add(key.to_owned(), item.to_string().len(), |note| match note.get_or_insert(Note::Items(Vec::new())) {
        Note::Items(items) if !items.contains(&item) => items.push(item),
        Note::Texts(_) | Note::Items(_) => {}
    });
}

fn add(key: String, size: usize, put: impl FnOnce(&mut Option<Note>)) {
    let _ = NOTES.try_with(|notes| {
        let mut notes = notes.borrow_mut();
        let size = notes.size + key.len() + size;
        if size <= MOST {
            notes.size = size;
            let mut note = notes.notes.remove(&key);
            put(&mut note);
            notes.notes.extend(note.map(|note| (key, note)));
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_said_is_told_once_and_not_without_bound() {
        annotate("nobody", "hears this");
        let (answer, told) = collect(async {
            annotate("a", "one");
            tokio::task::yield_now().await;
            annotate("a", "two");
            annotate("a", "one");
            annotate_item("list", json!({"n": 1}));
            annotate_item("list", json!({"n": 2}));
            annotate_item("list", json!({"n": 1}));
            annotate("long", "x".repeat(MOST));
            7
        })
        .await;
        let expected = [("a", "one, two"), ("list", r#"[{"n":1},{"n":2}]"#)];
        let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!((answer, told), (7, BTreeMap::from(expected)));
    }
}
