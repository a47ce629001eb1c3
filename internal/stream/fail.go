// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/trail"
)

// codedError is a failure of a sink that has a code of its own.
type codedError struct {
	code string
	leaf int64 // of the first entry concerned, or -1
}

func (e *codedError) Error() string { return e.code }

// laterError is a refusal that says when to come again.
type laterError struct {
	codedError
	wait time.Duration
}

func leafOf(err error) int64 {
	var c *codedError
	if errors.As(err, &c) {
		return c.leaf
	}
	return -1
}

// codeOf returns the word for a failure, for the log, the metric and the
// cursor's row.
func codeOf(err error) string {
	var coded *codedError
	var later *laterError
	var known *med.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var op *net.OpError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &later):
		return later.code
	case errors.As(err, &known):
		return med.CodeOf(err)
	case errors.Is(err, trail.ErrNoLog):
		return "no_log_yet"
	case errors.Is(err, errCursor):
		return "cursor"
	case errors.Is(err, outbound.ErrAddress):
		return "address_not_listed"
	case errors.Is(err, outbound.ErrURL):
		return "bad_url"
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &host):
		return "their_certificate"
	case errors.As(err, &op) && op.Op == "remote error":
		return "tls_refused" // most often: our certificate
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	case timeout(err):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "connection_lost"
	}
	return "other"
}

func timeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
