// Package tig stands for a part of nerdctl's own tests that is not published.
package tig

// T is what nerdctl's own tests have of testing.T.
type T interface {
	Helper()
	FailNow()
	Fail()
	Log(args ...any)
	Name() string
	TempDir() string
}
