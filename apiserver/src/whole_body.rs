//! Bodies of answers, in one piece.

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

/// All of a body; `None` if it has more than `most` bytes.
///
/// Its pieces are as small as the other side likes, one byte each: kept one by one, they take
/// many times what is in them.
///
/// # Errors
/// That of the body.
pub async fn whole<B>(body: B, most: usize) -> Result<Option<Vec<u8>>, B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if all.len() + data.len() > most {
            return Ok(None);
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(all))
}
