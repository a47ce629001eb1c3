// SPDX-License-Identifier: Apache-2.0

package med

import (
	"net/netip"
	"slices"
	"time"
)

// Role is what a caller's token says they are.
type Role string

// The roles. "provider" is read as Clinician.
const (
	RolePatient    Role = "patient"
	RoleNurse      Role = "nurse"
	RoleClinician  Role = "clinician"
	RoleAdmin      Role = "admin"
	RoleOfficer    Role = "officer"
	RoleBreakGlass Role = "break_glass"
)

// Roles lists every role, in the order of the tables.
var Roles = []Role{RolePatient, RoleNurse, RoleClinician, RoleAdmin, RoleOfficer, RoleBreakGlass}

// ParseRole returns the role a token's word stands for.
func ParseRole(s string) (Role, bool) {
	if s == "provider" {
		return RoleClinician, true
	}
	r := Role(s)
	return r, slices.Contains(Roles, r)
}

// MFA says whether, and how lately, a caller proved a second factor.
type MFA string

// MFA states. Fresh is at most five minutes old.
const (
	MFANone  MFA = "none"
	MFADone  MFA = "done"
	MFAFresh MFA = "fresh"
)

// Caller is who is calling, as the sidecar says, and where from, as the API
// saw it. It is a parameter of every call through the door, never a value in
// a context.
type Caller struct {
	// Issuer and Subject together are the person; Subject alone is not.
	Issuer, Subject string
	Roles           []Role
	Practice        PracticeID // "" only for break_glass alone
	Patient         PatientID  // the caller's own record, when they have one
	MFA             MFA
	MFAAt           time.Time // zero when the token does not say
	AuthTime        time.Time // zero when the token does not say
	Session         string
	TokenID         string
	ExpiresAt       time.Time

	// Service is set for unattended work instead of a token: "import", "worker".
	Service    string
	OnBehalfOf string

	Credential Credential
	Origin     Origin
	Purpose    string // X-Purpose-Of-Use, a code of v3-PurposeOfUse, or ""
	// AccessReason is X-Access-Reason, one of ReasonCodes, or "": why they look
	// into a chart of somebody they do not treat.
	AccessReason string
	Emergency    PHI  // X-Break-Glass-Reason as sent, or ""
	Emergent     bool // the header was there, even if blank
}

// Is reports whether the role is in force.
func (c *Caller) Is(r Role) bool { return slices.Contains(c.Roles, r) }

// Only reports whether the role is the only one in force.
func (c *Caller) Only(r Role) bool { return len(c.Roles) == 1 && c.Roles[0] == r }

// Network returns what stands for an address when addresses are counted: itself,
// or of IPv6 the /64, since one household has that many.
func Network(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() || a.Is4In6() {
		return ip
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return p.String()
}

// Origin is where a request came from, as the API saw it: data for the trail.
// Its strings are the client's; audit.Clean makes them fit to store.
type Origin struct {
	IP        string // by the trusted-proxy rule
	UserAgent string
	Origin    string // the Origin header
	RequestID string // ours
	ClientID  string // the client's own X-Request-Id
	TraceID   string // from traceparent
}
