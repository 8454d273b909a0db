#define _POSIX_C_SOURCE 200809L

#include "raftable_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the layout is little-endian"
#endif

#define OFFSET_MASK ((UINT64_C(1) << RAFTABLE_OFFSET_BITS) - 1)

/* One generation in memory. */
struct mapping {
	const unsigned char *data;
	size_t size;
	const struct raftable_header *header;
	const uint64_t *slots; /* atomic */
	uint64_t slot_count;
	uint64_t seed;
	uint64_t arena, end; /* offsets of the arena's first byte and of the one after it */
	dev_t dev;
	ino_t ino;
};

struct raftable {
	char *path;
	struct mapping map;
	unsigned pinned; /* calls to raftable_every that run on map */
	uint64_t at;     /* the index that they see */
};

static uint64_t load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* Checks the header against the size of the file. */
static int check(struct mapping *m)
{
	const struct raftable_header *h = (const void *)m->data;
	uint64_t size = m->size;

	if (h->magic != RAFTABLE_MAGIC)
		return EBADMSG;
	if (h->layout != RAFTABLE_LAYOUT_VERSION)
		return EPROTONOSUPPORT;
	uint64_t slots = h->slot_count;
	if (h->header_size != sizeof *h || slots == 0 || (slots & (slots - 1)) != 0 ||
	    slots > (size - sizeof *h) / 8)
		return EBADMSG;
	uint64_t arena = sizeof *h + slots * 8;
	if (h->arena_offset != arena || h->arena_size > size - arena || size > OFFSET_MASK)
		return EBADMSG;
	m->header = h;
	m->slots = (const void *)(m->data + sizeof *h);
	m->slot_count = slots;
	m->seed = h->seed;
	m->arena = arena;
	m->end = arena + h->arena_size;
	return 0;
}

/*
 * Maps what lies at path, unless that is old, the file already mapped: then it
 * returns EALREADY. Other results are 0 or an error number.
 */
static int map_file(const char *path, const struct mapping *old, struct mapping *m)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno;
	struct stat st;
	int err = 0;
	void *data = MAP_FAILED;
	if (fstat(fd, &st) != 0)
		err = errno;
	else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof(struct raftable_header))
		err = EBADMSG;
	else if (old != NULL && old->dev == st.st_dev && old->ino == st.st_ino)
		err = EALREADY;
	else if ((data = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
		err = errno;
	close(fd);
	if (err != 0)
		return err;

	*m = (struct mapping){.data = data, .size = st.st_size, .dev = st.st_dev, .ino = st.st_ino};
	err = check(m);
	if (err != 0)
		munmap(data, m->size);
	return err;
}

/*
 * Goes over to the next generation if there is one at the path, and returns the
 * index to read at, which is to be known before any slot is read.
 */
static uint64_t begin(raftable *t)
{
	if (t->pinned != 0)
		return t->at;
	struct mapping next;
	if (load(&t->map.header->superseded) != 0 &&
	    map_file(t->path, &t->map, &next) == 0) {
		munmap((void *)t->map.data, t->map.size);
		t->map = next;
	}
	return load(&t->map.header->applied);
}

/* Returns the record at off, or NULL where none can lie. */
static const struct raftable_record *record_at(const struct mapping *m, uint64_t off)
{
	if (off < m->arena || off % 8 != 0 || off > m->end ||
	    m->end - off < sizeof(struct raftable_record))
		return NULL;
	const struct raftable_record *r = (const void *)(m->data + off);
	uint64_t len = sizeof *r + (uint64_t)r->key_len + (r->value_len & ~RAFTABLE_TOMBSTONE);
	/* From 1 to 8 zeros follow. */
	if (m->end - off < ((len + 8) & ~UINT64_C(7)) || m->data[off + len] != 0)
		return NULL;
	return r;
}

static const char *key_of(const struct raftable_record *r)
{
	return (const char *)(r + 1);
}

static const char *value_of(const struct raftable_record *r)
{
	return key_of(r) + r->key_len;
}

/*
 * Follows the versions from off to the one in force at an applied index. Returns
 * NULL if there is none, or if that one is a tombstone. Offsets must fall, so the
 * loop ends in a damaged segment too.
 */
static const struct raftable_record *visible(const struct mapping *m, uint64_t off, uint64_t applied)
{
	const struct raftable_record *r;
	while ((r = record_at(m, off)) != NULL) {
		if (r->index <= applied)
			return r->value_len & RAFTABLE_TOMBSTONE ? NULL : r;
		if (r->prev >= off)
			return NULL;
		off = r->prev;
	}
	return NULL;
}

__extension__ typedef unsigned __int128 uint128;

static uint64_t fold(uint64_t a, uint64_t b)
{
	uint128 p = (uint128)a * b;
	return (uint64_t)(p >> 64) ^ (uint64_t)p;
}

static uint64_t hash_key(uint64_t seed, const char *key, size_t len)
{
	const uint64_t k1 = UINT64_C(0x9e3779b97f4a7c15), k2 = UINT64_C(0xd6e8feb86659fd93);
	uint64_t h = seed ^ (uint64_t)len * k1, word = 0;
	if (len >= 8) {
		for (size_t i = 0; i < len - 8; i += 8) {
			memcpy(&word, key + i, 8);
			h = fold(h ^ word, k2);
		}
		memcpy(&word, key + len - 8, 8); /* overlaps those before */
	} else {
		memcpy(&word, key, len);
	}
	return fold(fold(h ^ word, k2) ^ k1, k2);
}

/* Returns the offset of the newest record of key, or 0. */
static uint64_t locate(const struct mapping *m, const char *key, size_t len)
{
	uint64_t hash = hash_key(m->seed, key, len), mask = m->slot_count - 1;
	for (uint64_t n = 0; n <= mask; n++) {
		uint64_t slot = load(&m->slots[(hash + n) & mask]);
		if (slot == 0)
			return 0;
		if ((slot ^ hash) >> RAFTABLE_OFFSET_BITS != 0)
			continue;
		const struct raftable_record *r = record_at(m, slot & OFFSET_MASK);
		if (r != NULL && r->key_len == len && memcmp(key_of(r), key, len) == 0)
			return slot & OFFSET_MASK;
	}
	return 0;
}

raftable *raftable_open(const char *path)
{
	raftable *t = calloc(1, sizeof *t);
	if (t == NULL)
		return NULL;
	int err = ENOMEM;
	if ((t->path = strdup(path)) != NULL)
		err = map_file(path, NULL, &t->map);
	if (err != 0) {
		free(t->path);
		free(t);
		errno = err;
		return NULL;
	}
	return t;
}

void raftable_close(raftable *t)
{
	if (t == NULL)
		return;
	munmap((void *)t->map.data, t->map.size);
	free(t->path);
	free(t);
}

const char *raftable_get(raftable *t, const char *key, size_t key_len, size_t *value_len)
{
	const struct mapping *m = &t->map;
	uint64_t applied = begin(t);
	const struct raftable_record *r = visible(m, locate(m, key, key_len), applied);
	if (r == NULL)
		return NULL;
	if (value_len != NULL)
		*value_len = r->value_len;
	return value_of(r);
}

int raftable_every(raftable *t, raftable_func func, void *arg)
{
	const struct mapping *m = &t->map;
	uint64_t applied = begin(t);
	int result = 0;

	t->pinned++;
	t->at = applied;
	for (uint64_t i = 0; i < m->slot_count && result == 0; i++) {
		const struct raftable_record *r = visible(m, load(&m->slots[i]) & OFFSET_MASK, applied);
		if (r != NULL)
			result = func(key_of(r), r->key_len, value_of(r), r->value_len, arg);
	}
	t->pinned--;
	return result;
}

int raftable_stat(raftable *t, struct raftable_info *info)
{
	uint64_t applied = begin(t);
	const struct mapping *m = &t->map;
	const struct raftable_header *h = m->header;
	bool found;

	/* Repeats only if the writer commits in between. */
	do {
		applied = load(&h->applied);
		found = false;
		for (int i = 0; i < 2 && !found; i++) {
			const struct raftable_state *s = &h->states[i];
			if (load(&s->applied) != applied)
				continue;
			found = true;
			info->state_hash = load(&s->hash);
			info->keys = load(&s->keys);
			info->bytes = load(&s->bytes);
		}
	} while (load(&h->applied) != applied);
	if (!found || info->keys > m->slot_count) {
		errno = EBADMSG;
		return -1;
	}
	info->applied = applied;
	info->generation = h->generation;
	info->writer_pid = load(&h->writer_pid);
	info->heartbeat = load(&h->heartbeat);
	return 0;
}
