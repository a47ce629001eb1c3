// SPDX-License-Identifier: Apache-2.0

package med

import (
	"errors"
	"strings"
	"time"
)

// Kind of error that the outside may know. Each is a row of the problem
// table; anything without a kind is Internal, and the outside sees only a
// reference number.
type ErrorKind struct {
	Slug      string // last segment of the problem type; the code, with underscores
	Status    int    // HTTP
	Title     string
	Detail    string // when New is given none
	Category  string // HIPAA category, see Categories
	Retryable bool
}

// Categories maps each HIPAA category of a problem to its rule in 45 CFR.
var Categories = map[string]string{
	"access_control":        "164.312(a)(1)",
	"emergency_access":      "164.312(a)(2)(ii)",
	"audit_controls":        "164.312(b)",
	"integrity":             "164.312(c)(1)",
	"authentication":        "164.312(d)",
	"transmission_security": "164.312(e)(1)",
	"minimum_necessary":     "164.502(b)",
	"availability":          "164.308(a)(7)",
	"none":                  "",
}

// The problem table. The documentation and the OpenAPI file are made from it.
// The first four are the guide's, word for word.
var (
	Unauthorized             = kind("unauthorized", 401, "Unauthorized", "Valid JWT required. Sidecar validation failed.", "authentication", false)
	BreakGlassReasonRequired = kind("break-glass-reason-required", 403, "Forbidden", "Break-glass access requires X-Break-Glass-Reason header.", "emergency_access", false)
	Forbidden                = kind("forbidden", 403, "Forbidden", "Your role does not allow this.", "access_control", false)
	NotFound                 = kind("not-found", 404, "Not Found", "No such resource.", "none", false)

	Malformed            = kind("malformed", 400, "Bad Request", "This is not HTTP/1.1 as it is read here. Nothing of it was looked at.", "none", false)
	MFARequired          = kind("mfa-required", 403, "Forbidden", "This needs multi-factor authentication. Sign in again with a second factor.", "authentication", false)
	MethodNotAllowed     = kind("method-not-allowed", 405, "Method Not Allowed", "This resource does not have that method.", "none", false)
	Conflict             = kind("conflict", 409, "Conflict", "The resource was changed or exists already.", "integrity", false)
	Stale                = kind("stale", 412, "Precondition Failed", "The resource has a newer version. Read it again, then repeat the change.", "integrity", false)
	TooLarge             = kind("too-large", 413, "Content Too Large", "The request is larger than this resource takes.", "none", false)
	UnsupportedMedia     = kind("unsupported-media-type", 415, "Unsupported Media Type", "Send application/json.", "none", false)
	Invalid              = kind("invalid", 422, "Unprocessable Content", "The request is not valid.", "integrity", false)
	PreconditionRequired = kind("precondition-required", 428, "Precondition Required", "Send If-Match with the ETag of what you read.", "integrity", false)
	HeadersTooLarge      = kind("headers-too-large", 431, "Request Header Fields Too Large", "The request line and headers are larger than 32 KiB.", "none", false)
	RateLimited          = kind("rate-limited", 429, "Too Many Requests", "Too many requests. Wait as Retry-After says.", "availability", true)
	Internal             = kind("internal", 500, "Internal Server Error", "Something went wrong here. Nothing was disclosed. Quote the reference.", "none", false)
	DatabaseUnavailable  = kind("database-unavailable", 503, "Service Unavailable", "The database cannot be reached. Nothing was disclosed.", "availability", true)
	AuditUnavailable     = kind("audit-unavailable", 503, "Service Unavailable", "The audit trail cannot be written. Nothing was disclosed.", "audit_controls", true)
	KeysUnavailable      = kind("keys-unavailable", 503, "Service Unavailable", "The key service cannot be reached. Nothing was disclosed.", "availability", true)
	LimitsUnavailable    = kind("limits-unavailable", 503, "Service Unavailable", "The rate limiter cannot be reached. Nothing was disclosed.", "availability", true)
)

// ErrorKinds is the problem table, in the order of the documentation.
var ErrorKinds = []*ErrorKind{
	Unauthorized, BreakGlassReasonRequired, Forbidden, NotFound, Malformed, MFARequired, MethodNotAllowed, Conflict, Stale,
	TooLarge, UnsupportedMedia, Invalid, PreconditionRequired, HeadersTooLarge, RateLimited, Internal, DatabaseUnavailable,
	AuditUnavailable, KeysUnavailable, LimitsUnavailable,
}

// ErrorCodes are the codes that say more than their kind's slug, in the order
// of the documentation. Those of Internal are for the trail: the outside does
// not see them.
var ErrorCodes = []struct {
	Code string
	Kind *ErrorKind
	Says string
}{
	{"sidecar_unavailable", Unauthorized, "The sidecar could not be asked, so nobody is known. Worth a retry, other than the token itself."},
	{"cancelled", Unauthorized, "The client hung up before the sidecar had answered."},
	{"not_self", Forbidden, "A patient asked for a record that is not their own, whether or not there is one."},
	{"other_practice", Forbidden, "The patient belongs to another practice."},
	{"reason_required", Forbidden, "The policy asks who does not treat the patient for a coded reason: send X-Access-Reason."},
	{"own_record", Forbidden, "Whoever works here reads the accesses to their own record as every patient does."},
	{"field_not_writable", Forbidden, "The caller's role may not write a field that the request names."},
	{"field_not_searchable", Forbidden, "The caller may not see in clear what the search is by."},
	{"grant_refused", Forbidden, "The database did not take the break-glass grant."},
	{"not_sealed", NotFound, "The entry is not sealed into the log yet: ask again in a few seconds."},
	{"key_destroyed", NotFound, "The patient's key was destroyed: nothing can be read any more."},
	{"practice_missing", NotFound, "There is no such practice."},
	{"patient_deleted", NotFound, "The patient was deleted; an admin can restore them."},
	{"key_reused", Conflict, "The Idempotency-Key came before with another request."},
	{"not_deleted", Conflict, "The patient is not deleted."},
	{"window_over", Conflict, "The patient was deleted more than thirty days ago."},
	{"key_exists", Conflict, "The patient has a key already."},
	{"imported_meanwhile", Conflict, "Somebody imported the same patient meanwhile."},
	{"identity_conflict", Conflict, "Somebody else with the same id at the source is in the practice already."},
	{"recorded_before", Conflict, "There is a disclosure with this id already."},
	{"written_before", Conflict, "There is an appointment or assignment with this id already."},
	{"amended_meanwhile", Conflict, "Somebody amended the disclosure meanwhile: read it again, then repeat the change."},
	{"entered_in_error", Conflict, "The disclosure was entered in error before."},
	{"grant_over", Conflict, "The break-glass grant has ended or expired."},
	{"reviewed_before", Conflict, "Somebody reviewed the break-glass grant before."},
	{"masked_value", Invalid, "A mask came back as a value: it would take the place of what it stands for."},
	{"cursor_invalid", Invalid, "The cursor is not ours, is older than an hour, or was given to another caller or for another query."},
	{"key_missing", KeysUnavailable, "The key store has no such key."},
}

func kind(slug string, status int, title, detail, category string, retryable bool) *ErrorKind {
	return &ErrorKind{Slug: slug, Status: status, Title: title, Detail: detail, Category: category, Retryable: retryable}
}

// Error is a failure the outside may know of. Detail is for the caller and
// carries no value; the cause is for the log and carries ids only.
type Error struct {
	Kind       *ErrorKind
	Code       string // "" means the slug with underscores
	Detail     string // "" means the kind's
	Fields     []FieldError
	RetryAfter time.Duration
	Event      EventID // the audit entry of the refusal, once it has one
	cause      error
}

// FieldError says where a request is wrong and why, never with which value.
type FieldError struct {
	Pointer string `json:"pointer"`
	Reason  string `json:"reason"`
}

// New returns an error of this kind. An empty detail means the kind's own.
func (k *ErrorKind) New(detail string) *Error { return &Error{Kind: k, Detail: detail} }

// Because returns an error of this kind with a cause for the log.
func (k *ErrorKind) Because(cause error) *Error { return &Error{Kind: k, cause: cause} }

// Coded returns the error with a code that says more than the slug.
func (e *Error) Coded(code string) *Error { e.Code = code; return e }

// With returns the error with the places where the request is wrong.
func (e *Error) With(f ...FieldError) *Error { e.Fields = append(e.Fields, f...); return e }

// Caused returns the error with a cause for the log.
func (e *Error) Caused(err error) *Error { e.cause = err; return e }

func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, med.NotFound.New("")) a question about the kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind
}

func (e *Error) Error() string {
	msg := e.Kind.Slug
	if e.Code != "" {
		msg += " (" + e.Code + ")"
	}
	if e.cause != nil {
		msg += ": " + e.cause.Error()
	}
	return msg
}

// KindOf returns the kind of the error; Internal when it has none.
func KindOf(err error) *ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// EventOf returns the audit entry that an error carries.
func EventOf(err error) (EventID, bool) {
	var e *Error
	if errors.As(err, &e) && e.Event != "" {
		return e.Event, true
	}
	return "", false
}

// WithEvent returns the error with the id of its audit entry. An error without
// a kind becomes Internal.
func WithEvent(err error, id EventID) error {
	var e *Error
	if !errors.As(err, &e) {
		e = Internal.Because(err)
	}
	marked := *e
	marked.Event = id
	return &marked
}

// CodeOf returns the machine code of an error: its own, or its kind's slug
// with underscores.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Code != "" {
		return e.Code
	}
	return strings.ReplaceAll(KindOf(err).Slug, "-", "_")
}
