// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// A sidecar for the examples: it knows one token, and one rule.
func exampleSidecar() *coresdktest.Sidecar {
	answers := coresdktest.Tokens(map[string]*coresdkv1.ValidateTokenResponse{
		"clinician-token": {Subject: "dr-lee", Roles: []string{"clinician"}, Claims: map[string]string{"practice_id": "north"}},
	})
	answers.Authorize = func(_ context.Context, q *coresdkv1.AuthorizeRequest) (*coresdkv1.AuthorizeResponse, error) {
		return &coresdkv1.AuthorizeResponse{Allowed: q.GetAction() == "read", Reason: "clinician"}, nil
	}
	answers.Evaluate = func(context.Context, *coresdkv1.PolicyEvaluateRequest) (*coresdkv1.PolicyEvaluateResponse, error) {
		return &coresdkv1.PolicyEvaluateResponse{Result: true, ResourcePerm: &coresdkv1.ResourcePermDecision{
			Decision: "mask", Obligations: &coresdkv1.ResourcePermObligations{MaskFieldClasses: []string{"ssn", "dob"}},
		}}, nil
	}
	sidecar, err := coresdktest.Serve(answers, coresdktest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	return sidecar
}

func exampleSDK(sidecar *coresdktest.Sidecar) *coresdk.SDK {
	sdk, err := coresdk.New(context.Background(), coresdk.Config{Addr: sidecar.Addr, Timeout: time.Minute, ConnectTimeout: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	return sdk
}

// Fail mode open is refused, whatever else is set.
func ExampleFromEnv() {
	_ = os.Setenv("CORESDK_FAIL_MODE", "open")
	defer func() { _ = os.Unsetenv("CORESDK_FAIL_MODE") }()

	sdk, err := coresdk.FromEnv()
	fmt.Println(sdk == nil, err)
	// Output:
	// true coresdk: CORESDK_FAIL_MODE is "open", but this SDK only fails closed: without the sidecar nobody can tell who is calling, so nobody is let in; set it to closed, or unset it
}

// A service without its sidecar does not start.
func ExampleNew() {
	sidecar := exampleSidecar()
	_ = sidecar.Close()

	_, err := coresdk.New(context.Background(), coresdk.Config{Addr: sidecar.Addr, ConnectTimeout: 100 * time.Millisecond})
	fmt.Println(errors.Is(err, coresdk.ErrUnavailable))
	// Output: true
}

func ExampleSDK_Authorize() {
	sidecar := exampleSidecar()
	defer func() { _ = sidecar.Close() }()
	sdk := exampleSDK(sidecar)
	defer func() { _ = sdk.Close() }()

	for _, token := range []string{"clinician-token", "stolen-token"} {
		claims, err := sdk.Authorize(context.Background(), token)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(claims.Subject, claims.TenantID, claims.Roles)
	}
	// Output:
	// dr-lee north [clinician]
	// coresdk: unauthorized: the token is not valid
}

func ExampleSDK_Can() {
	sidecar := exampleSidecar()
	defer func() { _ = sidecar.Close() }()
	sdk := exampleSDK(sidecar)
	defer func() { _ = sdk.Close() }()

	for _, action := range []string{"read", "delete"} {
		allowed, _, err := sdk.Can(context.Background(), "clinician-token", action, "patient/p-001")
		fmt.Println(action, allowed, err)
	}
	// Output:
	// read true <nil>
	// delete false <nil>
}

func ExampleSDK_Evaluate() {
	sidecar := exampleSidecar()
	defer func() { _ = sidecar.Close() }()
	sdk := exampleSDK(sidecar)
	defer func() { _ = sdk.Close() }()

	d, err := sdk.Evaluate(context.Background(), "data.medirecord.allow", map[string]string{"action": "read"})
	fmt.Println(d.Allow, d.Masked, err)
	// Output: true [ssn dob] <nil>
}

func ExampleSDK_Revoke() {
	sidecar := exampleSidecar() // answers no to what it was not taught
	defer func() { _ = sidecar.Close() }()
	sdk := exampleSDK(sidecar)
	defer func() { _ = sdk.Close() }()

	fmt.Println(sdk.Revoke(context.Background(), "clinician-token", "lost phone"))
	// Output: coresdk: the sidecar did not revoke the token; it may still be good
}
