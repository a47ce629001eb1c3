// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// exchange is one request and its answer, from the first byte to the log line.
// It stays in this room: below, the caller is a parameter.
type exchange struct {
	id     string // ours
	start  time.Time
	method string
	route  string // the template, never the path
	from   med.Origin
	caller med.Caller
	known  bool        // the caller was authenticated
	names  names       // of the contract, for validation
	event  med.EventID // the audit entry of the answer
	code   string      // of the problem, when it became one
	gone   bool        // the client hung up
}

type exchangeKey struct{}

// exchangeFrom returns the exchange of a request that came through ServeHTTP.
func exchangeFrom(ctx context.Context) *exchange {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		// Without it nobody was authenticated: an unknown caller, refused by handle.
		return &exchange{}
	}
	return x
}

// answerWriter remembers what was answered.
type answerWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the first status and passes it on.
func (a *answerWriter) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write is an answer of 200 unless a status was given.
func (a *answerWriter) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answerWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }
