//! A queue between two parts of the helper's one task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Things that wait for one reader.
pub(crate) struct Mailbox<T> {
    queue: RefCell<VecDeque<T>>,
    reader: Cell<Option<Waker>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { queue: RefCell::default(), reader: Cell::default() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in and wakes the reader.
    pub(crate) fn put(&self, thing: T) {
        self.queue.borrow_mut().push_back(thing);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether this is waiting already.
    pub(crate) fn holds(&self, thing: &T) -> bool
    where
        T: PartialEq,
    {
        self.queue.borrow().contains(thing)
    }

    /// Takes the oldest thing out.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<T> {
        match self.queue.borrow_mut().pop_front() {
            Some(thing) => Poll::Ready(thing),
            None => {
                self.reader.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_is_woken_by_what_comes_after_it_has_looked() {
        let (mailbox, count) = (Mailbox::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Pending);
        mailbox.put(1);
        mailbox.put(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Ready(1));
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Ready(2));
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Pending);
    }
}
