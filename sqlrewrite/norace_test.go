//go:build !race

package sqlrewrite

const raceEnabled = false
