package sqlrewrite

// #include <pthread.h>
//
// // default_stack is the size of the stack that a thread of this process gets, 0 if it is not known.
// static size_t default_stack(void) {
// 	pthread_attr_t attr;
// 	size_t size = 0;
// 	if (pthread_attr_init(&attr) != 0) return 0;
// 	if (pthread_attr_getstacksize(&attr, &size) != 0) size = 0;
// 	pthread_attr_destroy(&attr);
// 	return size;
// }
import "C"

// What may reach the parser. Beyond these a text counts as unreadable and postgres is left to say what
// it thinks of it.
const (
	// maxTokens keeps the parser's memory within reason: it takes up to 520 bytes for a token.
	maxTokens = 1_500_000
	// bigText is the number of tokens from which texts are parsed one at a time.
	bigText = 100_000
	// maxDepth is the depth allowed where the stack is large enough, as it mostly is. TestDepth shows
	// that this takes less than a megabyte.
	maxDepth = 1500
	// stackPerLevel is more than any level was seen to take.
	stackPerLevel = 768
	// stackReserve is for all but the depth of the tree.
	stackReserve = 48 << 10
	// maxWork bounds depth times bytes: a large constant is copied once for every level above it.
	maxWork = 4 << 30
)

// depthLimit is the depth allowed on the threads of this process.
var depthLimit = limitFor(int(C.default_stack()))

func limitFor(stack int) int {
	return min(maxDepth, max(0, (stack-stackReserve)/stackPerLevel))
}
