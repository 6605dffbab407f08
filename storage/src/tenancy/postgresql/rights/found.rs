//! What a tenant's user may do, as the server says it.

use crate::tenancy::postgresql::connection::Session;
use crate::tenancy::{Claim, TenancyError};

/// What the server says of a tenant's role and database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What the role lacks of the attributes that it should have, as in `ALTER ROLE`.
    pub attributes: Vec<String>,
    /// Whether it may log in.
    pub login: bool,
    pub connections: i32,
    pub expires: bool,
    /// Databases in which the role has settings for its sessions (`None`: all of them). A
    /// tenant can make such settings itself.
    pub settings: Vec<Option<String>>,
    /// Roles whose rights it has.
    pub member_of: Vec<String>,
    /// Roles of others that have its rights.
    pub members: Vec<String>,
    /// Other databases that name it in their own list of rights.
    pub databases: Vec<String>,
    /// Where else it owns something, or was given a right on what all databases share.
    pub elsewhere: Vec<String>,
    /// Owner of its database, if that is not an administrator.
    pub owner: Option<String>,
    /// Whether the database can be entered.
    pub open: bool,
    /// Who has which right on the database, the owner aside, and whether he can give it to others.
    pub grants: Vec<(String, String, bool)>,
}

/// Asks the server. Role and database are there.
pub async fn find(session: &mut Session, claim: &Claim) -> Result<Found, TenancyError> {
    let user = [claim.user.as_str()];
    let both = [claim.user.as_str(), claim.schema.as_str()];
    let schema = [claim.schema.as_str()];
    let mut found = Found::default();

    // Attributes, login, connections, an end of the password, places of settings.
    type Role = (Vec<String>, bool, i32, bool, Vec<Option<String>>);
    let role: Vec<Role> = session.rows("look at the user", ROLE, &user).await?;
    for row in role {
        (
            found.attributes,
            found.login,
            found.connections,
            found.expires,
            found.settings,
        ) = row;
    }
    found.member_of = names(session.rows("look at roles", MEMBER_OF, &user).await?);
    found.members = names(session.rows("look at members", MEMBERS, &user).await?);
    found.databases = names(session.rows("look at rights", DATABASES, &both).await?);
    found.elsewhere = names(session.rows("look at rights", ELSEWHERE, &both).await?);

    let database: Vec<(Option<String>, bool)> = session
        .rows("look at the database", DATABASE, &schema)
        .await?;
    for (owner, open) in database {
        (found.owner, found.open) = (owner, open);
    }
    found.grants = session.rows("look at rights", GRANTS, &schema).await?;
    Ok(found)
}

/// The one column of these rows.
pub(super) fn names(rows: Vec<(String,)>) -> Vec<String> {
    rows.into_iter().map(|row| row.0).collect()
}

const ROLE: &str = "\
select pg_catalog.array_remove(array[
           case when rolsuper then 'nosuperuser' end,
           case when rolcreaterole then 'nocreaterole' end,
           case when rolcreatedb then 'nocreatedb' end,
           case when rolreplication then 'noreplication' end,
           case when rolbypassrls then 'nobypassrls' end,
           case when rolinherit then 'noinherit' end], null),
       rolcanlogin,
       rolconnlimit,
       rolvaliduntil is not null and rolvaliduntil <> 'infinity',
       array(select d.datname::text from pg_catalog.pg_db_role_setting s
           left join pg_catalog.pg_database d on d.oid = s.setdatabase
           where s.setrole = r.oid order by 1)
from pg_catalog.pg_roles r where rolname = $1";

const MEMBER_OF: &str = "\
select g.rolname::text from pg_catalog.pg_auth_members m
join pg_catalog.pg_roles u on u.oid = m.member
join pg_catalog.pg_roles g on g.oid = m.roleid
where u.rolname = $1 order by 1";

const MEMBERS: &str = "\
select distinct u.rolname::text from pg_catalog.pg_auth_members m
join pg_catalog.pg_roles u on u.oid = m.member
join pg_catalog.pg_roles g on g.oid = m.roleid
where g.rolname = $1 and u.rolname <> current_user and not u.rolsuper and not u.rolcreaterole
order by 1";

const DATABASES: &str = "\
select distinct d.datname::text
from pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
join pg_catalog.pg_roles r on r.oid = a.grantee
where r.rolname = $1 and d.datname <> $2 order by 1";

/// Rights on databases are looked at one by one, so they do not count here. What others
/// gave it in databases that it may not enter opens nothing: nobody can be kept from giving.
const ELSEWHERE: &str = "\
select distinct coalesce(d.datname::text, 'shared by all') from pg_catalog.pg_shdepend s
join pg_catalog.pg_roles r on r.oid = s.refobjid
left join pg_catalog.pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  and r.rolname = $1
  and s.classid not in ('pg_catalog.pg_database'::pg_catalog.regclass,
                        'pg_catalog.pg_auth_members'::pg_catalog.regclass)
  and (s.dbid = 0 or s.deptype = 'o' and d.datname is distinct from $2)
order by 1";

const DATABASE: &str = "\
select case when r.rolname = current_user or r.rolsuper or r.rolcreatedb then null
       else coalesce(r.rolname::text, '?') end,
       datallowconn
from pg_catalog.pg_database d left join pg_catalog.pg_roles r on r.oid = d.datdba
where datname = $1";

/// The same grant may come from two who gave it.
const GRANTS: &str = "\
select coalesce(r.rolname::text, ''), a.privilege_type::text, bool_or(a.is_grantable)
from pg_catalog.pg_database d,
     pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
left join pg_catalog.pg_roles r on r.oid = a.grantee
where d.datname = $1 and a.grantee <> d.datdba
group by 1, 2 order by 1, 2";
