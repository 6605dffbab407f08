//! Pauses of who looks through many objects.

/// Objects and bytes of them from one pause to the next.
const OBJECTS: usize = 256;
const BYTES: usize = 1024 * 1024;

/// Lets others have their turn from time to time: a worker that decodes page after page
/// serves nobody else meanwhile.
#[derive(Debug, Default)]
pub struct Pace {
    objects: usize,
    bytes: usize,
}

impl Pace {
    /// One more object, with so many bytes to be decoded.
    pub async fn step(&mut self, bytes: usize) {
        self.objects += 1;
        self.bytes += bytes;
        if self.objects >= OBJECTS || self.bytes >= BYTES {
            *self = Pace::default();
            tokio::task::yield_now().await;
        }
    }
}
