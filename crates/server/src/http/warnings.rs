//! Warnings that a request earns on its way: they go out as `Warning` headers, whether it succeeds or not.

use std::cell::RefCell;
use std::future::Future;

/// The most that one answer warns of, in bytes, as upstream: clients and proxies limit headers.
const MOST: usize = 4 * 1024;

tokio::task_local! {
    static WARNINGS: RefCell<Vec<String>>;
}

/// Runs a request; the second answer is the warnings that it earned.
pub(crate) async fn collect<F: Future>(request: F) -> (F::Output, Vec<String>) {
    WARNINGS
        .scope(RefCell::default(), async {
            let output = request.await;
            (output, WARNINGS.with(RefCell::take))
        })
        .await
}

/// Warns the client whose request is answered here; parts of this process hear nothing.
pub(crate) fn warn(text: impl Into<String>) {
    let text = text.into();
    let _ = WARNINGS.try_with(|warnings| {
        let mut warnings = warnings.borrow_mut();
        let said: usize = warnings.iter().map(String::len).sum();
        if !warnings.contains(&text) && said + text.len() <= MOST {
            warnings.push(text);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_warning_is_told_once_and_not_without_bound() {
        warn("nobody hears this");
        let (answer, warnings) = collect(async {
            warn("a");
            tokio::task::yield_now().await;
            warn("b");
            warn("a");
            warn("c".repeat(MOST));
            7
        })
        .await;
        assert_eq!((answer, warnings), (7, vec!["a".to_owned(), "b".to_owned()]));
    }
}
