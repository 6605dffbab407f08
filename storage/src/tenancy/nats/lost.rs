//! Whether a tenant's data is still there.

use super::bucket::Bucket;
use super::claims::Standing;
use crate::tenancy::Claim;

/// What is missing of a tenant's data.
pub fn lost(claim: &Claim, standing: &Standing, bucket: Option<&Bucket>) -> Option<String> {
    let noted = standing.record().and_then(|record| record.made.as_deref());
    match (bucket, noted) {
        (None, _) => Some(format!("the bucket {:?} does not exist", claim.schema)),
        (Some(bucket), Some(made)) if bucket.made != made => Some(format!(
            "the bucket {:?} was made anew at {}; the one with the data was made at {made}",
            claim.schema, bucket.made
        )),
        (Some(_), _) => None,
    }
}
