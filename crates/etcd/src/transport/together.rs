//! A connection and its calls in one task: the changes that arrive together are asked for together, and the answers that one
//! commit gives to several calls leave in one write.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;
use tokio::sync::mpsc;

/// Begins calls in the task of their connection.
#[derive(Debug, Clone)]
pub struct Calls(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        // A connection that has ended begins none.
        let _ = self.0.send(Box::pin(call));
    }
}

/// Runs the connection that `serve` makes, and the calls that it begins, until it ends. Calls that are under way then end
/// with it.
pub async fn together<C: Future>(serve: impl FnOnce(Calls) -> C) -> C::Output {
    let (begin, mut begun) = mpsc::unbounded_channel();
    let mut connection = pin!(serve(Calls(begin)));
    let mut calls = FuturesUnordered::new();
    poll_fn(|context| {
        loop {
            // Calls before the connection: what they answer goes out with what it writes next.
            while let Poll::Ready(Some(())) = calls.poll_next_unpin(context) {}
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let before = calls.len();
            while let Poll::Ready(Some(call)) = begun.poll_recv(context) {
                calls.push(call);
            }
            if calls.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn what_is_answered_at_once_is_there_when_the_connection_writes() {
        let (commit, committed) = watch::channel(false);
        let answers = Arc::new(Mutex::new(0));
        let (mut began, mut writes) = (false, Vec::new());
        let serve = |calls: Calls| {
            let (answers, commit) = (answers.clone(), &commit);
            poll_fn(move |_| {
                if !began {
                    began = true;
                    for _ in 0..3 {
                        let (mut committed, answers) = (committed.clone(), answers.clone());
                        calls.execute(async move {
                            committed.wait_for(|committed| *committed).await.unwrap();
                            *answers.lock().unwrap() += 1;
                        });
                    }
                    return Poll::Pending;
                }
                // By now all calls have asked.
                commit.send_replace(true);
                let answered = std::mem::take(&mut *answers.lock().unwrap());
                writes.extend((answered > 0).then_some(answered));
                if writes.is_empty() { Poll::Pending } else { Poll::Ready(std::mem::take(&mut writes)) }
            })
        };
        assert_eq!(together(serve).await, [3], "one write for all three");
    }
}
