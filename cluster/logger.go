package cluster

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/logger"
	"github.com/rs/zerolog"
)

// Dragonboat has one set of loggers for the whole process; its lines go to the
// logger of the node that was started last.
var raftLog struct {
	once   sync.Once
	target atomic.Pointer[zerolog.Logger]
}

// useLogger sends dragonboat's lines to log from now on.
func useLogger(log zerolog.Logger) {
	log = log.With().Str("component", "dragonboat").Logger()
	raftLog.target.Store(&log)
	raftLog.once.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger {
			return &raftLogger{pkg: pkg, target: raftLog.target.Load, last: make(map[string]*repeated)}
		})
	})
}

// raftLogger writes dragonboat's lines one level lower than dragonboat means
// them, since what it calls an error, such as a member that cannot be reached,
// is daily life. Of warnings with the same format one is written per interval.
type raftLogger struct {
	pkg    string
	target func() *zerolog.Logger

	mu   sync.Mutex
	last map[string]*repeated
}

// repeated counts the lines of one format.
type repeated struct {
	written time.Time
	held    int // back since then
}

const repeatInterval = 10 * time.Second

// raftPanic is what dragonboat's Panicf panics with. It is an error because
// NewNodeHost swallows panics with anything else.
type raftPanic struct{ message string }

func (p *raftPanic) Error() string { return p.message }

// SetLevel does nothing: the level is the target's.
func (l *raftLogger) SetLevel(logger.LogLevel) {}

func (l *raftLogger) Debugf(format string, args ...any) {
	l.write(l.target().Trace(), format, args)
}

func (l *raftLogger) Infof(format string, args ...any) {
	l.write(l.target().Debug(), format, args)
}

func (l *raftLogger) Warningf(format string, args ...any) {
	l.seldom(zerolog.InfoLevel, format, args)
}

func (l *raftLogger) Errorf(format string, args ...any) {
	l.seldom(zerolog.WarnLevel, format, args)
}

func (l *raftLogger) Panicf(format string, args ...any) {
	message := text(format, args)
	l.target().Error().Str("package", l.pkg).Msg(message)
	panic(&raftPanic{message: message})
}

func (l *raftLogger) write(e *zerolog.Event, format string, args []any) {
	if e != nil {
		e.Str("package", l.pkg).Msg(text(format, args))
	}
}

// seldom writes the line unless one of its kind was written lately.
func (l *raftLogger) seldom(level zerolog.Level, format string, args []any) {
	e := l.target().WithLevel(level)
	if !e.Enabled() {
		return
	}
	held, ok := l.due(format, time.Now())
	if !ok {
		return
	}
	if held > 0 {
		e = e.Int("held_back", held)
	}
	l.write(e, format, args)
}

// due reports whether a line of this format may be written, and how many were
// held back since the last one.
func (l *raftLogger) due(format string, now time.Time) (held int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.last[format]
	if r == nil {
		r = &repeated{}
		l.last[format] = r
	} else if now.Sub(r.written) < repeatInterval {
		r.held++
		return 0, false
	}
	held, r.held, r.written = r.held, 0, now
	return held, true
}

func text(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}
