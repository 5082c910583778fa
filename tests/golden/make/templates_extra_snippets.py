"""Small templates, a feature or a corner each."""

CONTEXT = {
    "d": {"k": "v", "n": 2, "items": "shadowed", "nested": {"a": [1, {"b": "deep"}]}},
    "l": [3, 1, 2],
    "names": ["bob", "Alice", "carol", "alice"],
    "objs": [
        {"n": "b", "ok": True, "v": 2, "g": "x"},
        {"n": "a", "ok": False, "v": 10, "g": "y"},
        {"n": "C", "ok": True, "v": 3, "g": "X"},
    ],
    "s": "Hello, World",
    "u": "\u00e9\u4f60 \U0001f600 Stra\u00dfe",
    "multi": "one\n  two\n\nthree",
    "quote": "it's \"x\" <b>&\\ \n\t\x01",
    "html": "<p class='a'>x &amp; y</p>",
    "none": None,
    "yes": True,
    "no": False,
    "i": 7,
    "neg": -7,
    "f": 2.5,
    "big": 1e20,
    "empty": "",
    "nothing": [],
}

EXPRESSIONS = r"""
1 + 2 * 3 - 4 / 2
7 // 2 ~ ' ' ~ -7 // 2 ~ ' ' ~ 7 // -2
7 % 3 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 % -3
7.5 // 2 ~ ' ' ~ -7.5 // 2 ~ ' ' ~ -7.5 % 2 ~ ' ' ~ 7.5 % -2
2 ** 10 ~ ' ' ~ 2 ** -1 ~ ' ' ~ 2 ** 0.5 ~ ' ' ~ -2 ** 2
2 ** 3 ** 2
1 / 3
10 / 5
1e16
1e15
1e-4
1e-5
123456789012345680.0
1.5e300 * 1e10
0.1 + 0.2
100.0
-0.0
1_000
0x1F + 0b11 + 0o17
1_000.5
1e3
.5
1.
true + true
true * 3
1 == 1.0 == true
1 == '1'
'a' < 'b' < 'c'
1 < 2 > 1
[1, 2] < [1, 3]
(1, 2) == (1, 2)
[1] == (1,)
{'a': 1} == {'a': 1.0}
none == none
none < 1
'a' < 1
not 1 == 2
not (yes and no) or no
yes and 'x' or 'y'
no or '' or 'z'
1 and 2 and 3
0 or none
1 in l
9 not in l
'k' in d
'lo' in s
1 in s
'x' in undefined_thing
undefined_thing in l
1 in 5
1 if yes
1 if no
(1 if no) is defined
'a' if no else 'b' if no else 'c'
'a' ~ 1 ~ 2.0 ~ none ~ true ~ [1] ~ {'a': 'b'} ~ (1,)
'a' 'b' "c"
'a' + 'b'
'a' + 1
1 + 'a'
[1] + [2]
(1,) + (2,)
[1] + (2,)
'ab' * 3
3 * 'ab'
'ab' * -1
[1, 2] * 2
(1,) * 2
'ab' * 'c'
'ab' * 1.5
-'a'
+true
-true
- -3
+-3
l[0] ~ l[-1] ~ l[1:] ~ l[:-1] ~ l[::-1] ~ l[::2] ~ l[5:] ~ l[-2:]
s[0] ~ s[-1] ~ s[1:4] ~ s[::-1] ~ s[::3] ~ s[20:] ~ s[-3:]
u[0] ~ u[1] ~ u[-1] ~ u[::-1] ~ u[2:5]
l[10]
l['a']
s[100]
l[::0]
l['a':]
d[1:2]
i[0]
none[0]
(1, 2, 3)[1:]
range(10)[2:8:3] | list
range(5)[-1]
range(5)[9]
range(3)
range(1, 4)
range(5, 0, -2) | list
range(0) | list
range(1, 2, 0)
range('a')
range(1.5)
range()
d.k
d['k']
d.items
d['items']
d.items()
d.keys()
d.values()
d.keys() | list
d.items() | list | length
d.keys() | length
d.get('k') ~ d.get('zz') ~ d.get('zz', 1)
d.get()
d.missing
d.missing.more
d['missing'] is defined
d.nested.a[1].b
d.nested.a.1.b
d.update({})
d.pop('k')
d.setdefault
d.copy() == d
l.append(1)
l.index(1)
l.index(9)
l.count(1)
l.copy()
l.sort
(1, 2, 1).count(1)
(1, 2).index(2)
(1, 2).copy()
d.__class__
''.__class__
''.__class__.__mro__
d._private
s.upper() ~ s.lower() ~ s.title() ~ s.capitalize() ~ s.swapcase()
u.upper() ~ u.lower() ~ u.title() ~ u.capitalize() ~ u.swapcase() ~ u.casefold()
'  x '.strip() ~ '|' ~ '  x '.lstrip() ~ '|' ~ '  x '.rstrip() ~ '|'
'xxaxx'.strip('x') ~ 'abcba'.strip('ab') ~ 'x'.strip('')
'\u00a0x\u2003'.strip()
'a,b,,c'.split(',')
'a,b,,c'.split(',', 1)
'a,b,,c'.rsplit(',', 1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
' a  b c '.rsplit()
'a b c d'.split(' ', 2)
'a b c d'.rsplit(maxsplit=2)
'  '.split()
''.split()
''.split(',')
'abc'.split('')
'a--b--c'.split('--')
'aaa'.split('aa')
'aaa'.rsplit('aa')
'a\nb\r\nc\x0bd\u2028e\n'.splitlines()
'a\nb\n'.splitlines(true)
'abc'.startswith('a') ~ 'abc'.startswith(('x', 'a')) ~ 'abc'.startswith('b', 1) ~ 'abc'.endswith('bc') ~ 'abc'.endswith('b', 0, 2)
'abc'.startswith('')
'abc'.startswith('', 4)
'abc'.startswith(['a'])
'abc'.startswith(1)
'banana'.find('an') ~ 'banana'.find('an', 2) ~ 'banana'.find('x') ~ 'banana'.rfind('an') ~ 'banana'.index('n') ~ 'banana'.rindex('n')
u.find('\u00df') ~ u.rfind('S') ~ u.find('')
'banana'.index('x')
'banana'.count('a') ~ 'banana'.count('') ~ 'aaaa'.count('aa') ~ 'banana'.count('a', 2)
'banana'.replace('a', 'o') ~ 'banana'.replace('a', 'o', 2) ~ 'abc'.replace('', '-') ~ 'abc'.replace('', '-', 2)
'abc'.replace('a', 1)
', '.join(names) ~ '-'.join('abc') ~ ''.join([])
', '.join([1])
'a{}b{}'.format(1, 2) ~ '{0}{1}{0}'.format('x', 'y') ~ '{a}'.format(a=1) ~ '{{}}'.format()
'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')
'{:5d}|{:05d}|{:+d}|{:x}|{:#x}|{:b}|{:,}|{:_}'.format(1, 2, 3, 255, 255, 5, 1234567, 1234567)
'{:.2f}|{:8.3f}|{:e}|{:g}|{:%}|{:.0f}'.format(3.14159, 2.71828, 12345.678, 0.0001, 0.25, 2.5)
'{!r} {!s}'.format('a', 'b')
'{0[a]} {1.k}'.format({'a': 1}, d)
'{}'.format()
'{'.format()
'}'.format()
'{:d}'.format('a')
'{:s}'.format(1)
'{:{}}'.format('a', 5)
'{:>{w}}'.format('a', w=4)
'{a}'.format_map({'a': 3})
'{:5}'.format(none)
'{}{}{}'.format(none, true, [1])
'{:10}|'.format(3.5)
'{:10}|'.format(3)
'{:<10}|'.format(true)
'{:,.2f}'.format(1234567.891)
'%s %d %5.2f %x %o %c %r %%' % ('a', 3, 2.5, 255, 8, 'z', 'q')
'%(a)s-%(b)03d' % {'a': 1, 'b': 2}
'%s' % 'x' ~ '%s' % none ~ '%s' % [1, 2]
'%5s|%-5s|%05d|%+d|% d' % ('a', 'b', 42, 1, 2)
'%.2s' % 'abc'
'%d' % 3.9
'%d' % '3'
'%x' % 1.5
'%e %G %g' % (12345.678, 0.00001, 1e20)
'%s %s' % 'a'
'%s' % ('a', 'b')
'%q' % 1
'%' % ()
'%*d' % (5, 42)
'%c' % 65
'%#x %#o' % (255, 8)
'x'.ljust(3) ~ '|' ~ 'x'.rjust(3) ~ '|' ~ 'x'.center(4) ~ '|' ~ 'xx'.center(5) ~ '|' ~ 'x'.ljust(3, '*')
'7'.zfill(3) ~ '-7'.zfill(4) ~ '+x'.zfill(4)
'a-b-c'.partition('-') ~ 'a-b-c'.rpartition('-') ~ 'abc'.partition('-') ~ 'abc'.rpartition('-')
'prefix-x'.removeprefix('prefix-') ~ 'x.txt'.removesuffix('.txt') ~ 'abc'.removeprefix('b')
'a\tb'.expandtabs() ~ 'ab\tc'.expandtabs(4)
'abc'.isalpha() ~ 'ab1'.isalnum() ~ '12'.isdigit() ~ '1.2'.isdigit() ~ ' '.isspace() ~ ''.isspace() ~ 'Ab Cd'.istitle()
'\u00b2'.isdigit() ~ '\u00b2'.isdecimal() ~ '\u00bd'.isnumeric() ~ 'a1'.isidentifier() ~ '1a'.isidentifier() ~ 'abc'.isascii() ~ u.isascii()
'AB'.isupper() ~ 'ab'.islower() ~ '12'.isupper() ~ 'aB'.islower()
'abc'.nosuch
'abc'.nosuch()
'abc'.upper
s.encode
i.real
zz
zz.a
zz[0]
zz()
zz + 1
zz ~ 'x'
zz == zz2
zz == none
zz is defined
not zz
zz < 1
-zz
zz | length
zz | list
zz | join(',')
zz | upper
zz | trim
zz | int
zz | default('x')
zz | string | length
zz | first
zz | tojson
zz | replace('a', 'b')
zz | items | list
zz | selectattr('a') | list
zz | sum
zz | sort
zz | abs
zz | last is defined
zz | dictsort
zz | map('upper') | list
zz | title
zz.a | default('x')
d.zz | default('x')
d.zz.yy | default('x')
none | default('x')
none | default('x', true)
'' | default('x', boolean=true)
0 | d(5, true)
s | upper | lower | title | capitalize
'hello-world (foo) [bar] <baz>' | title
u | upper ~ u | lower ~ u | title ~ u | capitalize
none | upper
5 | upper
' x ' | trim ~ '|' ~ 'xxaxx' | trim('x') ~ 5 | trim
l | length ~ s | length ~ d | length ~ u | length ~ (1, 2) | count
5 | length
none | length
l | first ~ l | last ~ s | first ~ s | last ~ d | first ~ d | last
nothing | first
nothing | last is defined
range(3) | last
l | map('string') | last
5 | first
l | join(', ') ~ names | join ~ 'abc' | join('-') ~ d | join(',')
objs | join(',', attribute='n')
[1, none, true, 'x'] | join('|')
l | sort ~ l | sort(reverse=true) ~ names | sort ~ names | sort(case_sensitive=true)
objs | sort(attribute='v') | map(attribute='n') | list
objs | sort(attribute='n') | map(attribute='n') | list
objs | sort(attribute='g,v') | map(attribute='n') | list
objs | sort(attribute='n', reverse=true, case_sensitive=true) | map(attribute='n') | list
[1, 'a'] | sort
[[2, 1], [1, 2]] | sort
'hello' | sort
d | sort
l | reverse | list ~ s | reverse
l | reverse
5 | reverse
names | unique | list
names | unique(case_sensitive=true) | list
objs | unique(attribute='g') | map(attribute='n') | list
[1, 1.0, true, '1'] | unique | list
[[1], [1]] | unique | list
l | min ~ l | max ~ names | min ~ names | max ~ nothing | min
names | max(case_sensitive=true)
objs | max(attribute='v')
[1, 'a'] | max
l | sum ~ l | sum(start=10) ~ objs | sum(attribute='v') ~ [1.5, 2] | sum
['a'] | sum
[[1], [2]] | sum(start=[])
l | map('string') | list
l | map('add') | list
names | map('upper') | join(' ')
names | map('replace', 'a', 'o') | list
objs | map(attribute='n') | join
objs | map(attribute='zz') | list
objs | map(attribute='zz', default='-') | list
[[1, 2], [3]] | map('first') | list
[[1, 2], [3]] | map(attribute=0) | list
[[1, 2], [3]] | map(attribute='0') | list
[{'a': {'b': 1}}] | map(attribute='a.b') | list
l | map | list
l | map(foo='x') | list
l | map('round', 1) | list
l | map('default', 'x') | list
l | select('odd') | list ~ l | reject('odd') | list ~ [0, 1, '', 'a'] | select | list ~ [0, 1] | reject | list
l | select('gt', 1) | list ~ l | select('in', [1, 2]) | list ~ l | select('divisibleby', 3) | list
l | select('nosuch') | list
objs | selectattr('ok') | map(attribute='n') | list
objs | selectattr('n', 'equalto', 'a') | list | length
objs | selectattr('n', '==', 'a') | list | length
objs | selectattr('v', '>', 2) | map(attribute='v') | list
objs | selectattr('zz', 'defined') | list
objs | selectattr('zz', 'undefined') | list | length
objs | rejectattr('ok') | map(attribute='n') | list
objs | rejectattr('v', 'lt', 5) | map(attribute='n') | list
objs | selectattr | list
l | list ~ s | list ~ d | list ~ (1, 2) | list ~ range(2) | list
5 | list
5 | string ~ none | string ~ [1] | string ~ 'a' | string
'42' | int ~ '4.7' | int ~ 'x' | int ~ 'x' | int(9) ~ '0x1f' | int(base=16) ~ '1f' | int(0, 16) ~ 3.9 | int ~ -3.9 | int ~ none | int ~ true | int
' 42 ' | int ~ '1_000' | int ~ '' | int ~ [] | int ~ '-5' | int ~ '+5' | int ~ '1e3' | int ~ 'inf' | int(7)
'0b11' | int(0, 0) ~ '0b11' | int(0, 2)
'1.5' | float ~ 'x' | float ~ 'x' | float(2.5) ~ 3 | float ~ 'inf' | float ~ 'nan' | float ~ '1e5' | float ~ none | float
-5 | abs ~ -2.5 | abs ~ true | abs
'a' | abs
2.5 | round ~ 3.5 | round ~ -2.5 | round ~ 2.675 | round(2) ~ 42.55 | round(1) ~ 7 | round ~ 1234 | round(-2) ~ 1250 | round(-2) ~ 1350 | round(-2)
42.55 | round(1, 'floor') ~ 42.51 | round(1, 'ceil') ~ 42 | round(0, 'ceil') ~ 42.1 | round(method='ceil') | int
1 | round(1, 'nope')
'a' | round
1234.5 | round(-2)
d | items | list
none | items | list
[1] | items | list
{'b': 1, 'a': 2, 'C': 0} | dictsort
{'b': 1, 'a': 2, 'C': 0} | dictsort(true)
{'b': 1, 'a': 2, 'C': 0} | dictsort(false, 'value')
{'b': 1, 'a': 2, 'C': 0} | dictsort(reverse=true)
{'b': 1} | dictsort(by='nope')
[1] | dictsort
multi | indent
multi | indent(2, true)
multi | indent(2, blank=true)
multi | indent('> ', first=true, blank=true)
'' | indent
5 | indent
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(11)
'foo bar baz qux' | truncate(11, false, '...', 0)
'foo bar baz qux' | truncate(5, end='!')
'foobarbaz' | truncate(5, leeway=0)
'abc' | truncate(2)
'foo, bar\u00e9 b1 _x' | wordcount
l | batch(2) | list
l | batch(2, 'x') | list
l | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1] | slice(0) | list
objs | groupby('g') | list | length
objs | groupby('g') | map('first') | list
objs | groupby('ok')
objs | groupby('zz', default='none') | map(attribute='grouper') | list
objs | groupby('g', case_sensitive=true) | map(attribute='list') | map('length') | list
html | escape ~ html | e ~ (html | escape | escape) ~ html | forceescape
(html | escape) + '<'
'<' + (html | escape)
(html | escape) ~ '<'
html | safe ~ '<'
(html | safe) is escaped
[html | safe]
html | striptags
'<!-- c -->a <b>b</b>\n\n  c' | striptags
'a b/c?d=\u00e9&e' | urlencode
{'a b': 1, 'c': '/\u00e9'} | urlencode
[('a', 1), ('b', 2)] | urlencode
5 | urlencode
{'class': 'a"b', 'id': none, 'x': 1} | xmlattr
{'class': 'a'} | xmlattr(false)
{'a b': 1} | xmlattr
'%s-%d' | format('a', 3)
'%(a)s' | format(a=1)
'%s' | format('a', b=1)
'x' | center(5) ~ '|' ~ 'x' | center(4) ~ '|' ~ 'xx' | center(5) ~ '|'
'a long sentence that wraps around' | wordwrap(10)
'averyveryverylongword here' | wordwrap(8)
'averyveryverylongword here' | wordwrap(8, false)
'well-known hyphen-ated words' | wordwrap(12)
'para one is long\n\npara two' | wordwrap(9, wrapstring='<br>')
1000 | filesizeformat ~ 1 | filesizeformat ~ 500 | filesizeformat ~ 1500000 | filesizeformat ~ 1048576 | filesizeformat(true)
objs | attr('n')
d | attr('keys') is callable
d | attr('k')
d | attr('zz') is defined
d | tojson
d | tojson(indent=2)
d | tojson(indent=0)
d | tojson(indent='--')
[] | tojson(indent=2) ~ {} | tojson(indent=2) ~ [[]] | tojson(indent=1)
quote | tojson
u | tojson ~ u | tojson(ensure_ascii=true)
'\u2028\x7f</script>' | tojson
{'b': 1, 'a': [1, 2.0, none, true, 1e20, 1.5e-7]} | tojson(sort_keys=true)
d | tojson(separators=(',', ':'))
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
(1, 2) | tojson
range(3) | tojson
d.items() | tojson
l | map('string') | tojson
namespace() | tojson
s | tojson | tojson
1e400 | tojson
d | pprint
none is none ~ none is not none ~ zz is none
1 is number ~ 1.5 is number ~ true is number ~ '1' is number
1 is integer ~ true is integer ~ 1.0 is integer ~ 1.0 is float ~ 1 is float
true is boolean ~ 1 is boolean ~ true is true ~ 1 is true ~ false is false ~ 0 is false
's' is string ~ 1 is string ~ (html | safe) is string
d is mapping ~ l is mapping ~ namespace() is mapping
l is sequence ~ s is sequence ~ d is sequence ~ 1 is sequence ~ range(2) is sequence ~ d.keys() is sequence ~ (l | map('string')) is sequence
l is iterable ~ s is iterable ~ 1 is iterable ~ d.items() is iterable ~ none is iterable ~ zz is iterable
s.upper is callable ~ range is callable ~ 1 is callable ~ zz is callable
2 is even ~ 3 is odd ~ 2 is odd ~ -1 is odd ~ 4 is divisibleby 2 ~ 4 is divisibleby(3)
'a' is odd
1 is eq 1 ~ 1 is equalto 2 ~ 1 is ne 2 ~ 1 is lt 2 ~ 1 is lessthan(2) ~ 2 is gt 1 ~ 2 is greaterthan 1 ~ 1 is ge 1 ~ 1 is le 1
1 is in [1] ~ 2 is in([1]) ~ 'a' is in 'abc' ~ 1 is not in [1]
true is sameas true ~ 1 is sameas true ~ none is sameas none ~ 'a' is sameas 'a'
'abc' is lower ~ 'ABC' is upper ~ 'aBc' is lower ~ '1' is lower
'upper' is filter ~ 'nope' is filter ~ 'odd' is test ~ 'nope' is test
1 is defined and 2 is defined
not 1 is odd
1 is not odd
1 is odd is true
1 is divisibleby
1 is nosuch
1 | nosuch
(1, 2) ~ () ~ (1,) ~ [()]
{'a': 1, 'b': [1, 2], 3: none} ~ {}
{'a': 1, 'a': 2}
{[1]: 2}
{1: 'a', 1.0: 'b', true: 'c'}
[1, 'a', "it's", 'say "x"', 'both \' and "', 1.5, none, true, u, 'tab\t\n\x00\x7f\u200b']
dict(a=1, b='x') ~ dict([('a', 1)]) ~ dict(d, z=1) ~ dict()
dict([1])
dict(1)
namespace(a=1, b=2).a
namespace(d).k
namespace(a=1)
namespace(_a=1)
namespace().zz
namespace(a=1)['a']
cycler('a', 'b').next()
cycler().next()
cycler('a', 'b').current
joiner('|')()
lipsum is defined
raise_exception('stop')
raise_exception()
strftime_now('%Y-%m-%d %d %B %b %A %H:%M')
strftime_now('%Y') | int + 1
range.x
[1, 2, 3,] ~ (1, 2,) ~ {'a': 1,}
[,]
(1
1 2
1 +
'a' 1
a.
a[
a['x'
foo(a=1, 2)
foo(*[1], **{'a': 1})
dict(**{'a': 1})
dict(**1)
dict(a=1, **{'a': 2})
range(*[1, 4]) | list
range(*5)
'\x41\u00e9\n\t\\\'\"\101\N{BULLET}'
'\q\d'
'\x4'
'a\
b'
"multi
line"
'''
loop
self
caller
varargs
true.x ~ True ~ False ~ None
1.5.x
'a'.b.c
1 if 2 if 3 else 4 else 5
[x for x in l]
lambda x: x
l | map('lower') | map('upper') | list
(l | map('string') | list)[0]
l | map('string')[0]
- l | sum
-5 | abs
2 + 3 | abs
'a' ~ 'b' | upper
('a' ~ 'b') | upper
'a' 'b' | upper
not l
not nothing and not none
1 <= 2 == true
(1 <= 2) == true
i > 3 and f < 3 or no
d.k == 'v' and d.n is number
d == {'k': 'v'}
s.split(', ')[1] | upper
s.split(', ') | map('length') | list
(s.split(',') | map('trim') | list)[-1]
d['nes' ~ 'ted']['a'][0]
d[none]
d[[1]]
d[1.0]
l[1.0]
l[true]
l[none]
s['upper']()
d['get']('k')
l[0:2, 1]
l[]
big ~ ' ' ~ big | int
9223372036854775807
i.bit_length
f.is_integer
'\ud83d\ude00'
'%s' % zz
'{}'.format(zz)
[zz]
[zz] | tojson
{'a': zz}
zz * 2
zz in 'abc'
'a' in zz
d in [d]
[1, [2, [3]]] | string | length
html | replace('<', '[') | replace('>', ']', 1)
'aXbX' | replace('X', none)
5 | replace(5, 6)
names | map('first') | join
names | map('length') | sum
'x' | default
'abc' | list | reverse | join
'abc' | batch(2) | map('join') | list
d | length == d.keys() | list | length
d.values() | list | last
d.items() | first
d | dictsort | first | last
d.items() | map('first') | list
range(4)[::-1] ~ range(9)[2:8:3] ~ range(5, 0, -2)[1:] ~ range(3)[5:]
range(4).index(2) ~ range(4).count(9) ~ range(1, 9, 3).step
none | map('upper') | list
true | map('upper')
'x' % zz
'x' % l ~ 'x' % d
'x' % 5
d | truncate(50)
l | truncate(3, leeway=0)
d.items() | sort | length
(d.items() | list)[0][1]
"""

STATEMENTS = [
    "{% if yes %}a{% elif no %}b{% else %}c{% endif %}",
    "{% if no %}a{% elif yes %}b{% else %}c{% endif %}",
    "{% if no %}a{% elif no %}b{% else %}c{% endif %}",
    "{% if zz %}a{% endif %}b",
    "{% if l, 1 %}a{% endif %}",
    "{% if yes: %}a{% endif %}",
    "{% for x in l %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in nothing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in zz %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in none %}{{ x }}{% endfor %}",
    "{% for x in 5 %}{{ x }}{% endfor %}",
    "{% for x in s[:3] %}{{ x }}-{% endfor %}",
    "{% for k in d %}{{ k }},{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for a, b in [[1, 2], (3, 4), 'xy'] %}{{ a }}{{ b }};{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for a, b in [1] %}{{ a }}{% endfor %}",
    "{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, in [[1]] %}{{ a }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in l | map('string') %}{{ loop.last }}{{ loop.length }}{{ loop.nextitem | default('-') }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in l %}{{ loop.nosuch }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}E{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% for x in l %}{% for y in [] %}{% else %}{% break %}{% endfor %}{{ x }}{% endfor %}",
    "{% for x in l %}{% set a %}{% break %}{% endset %}{{ x }}{% endfor %}!",
    "{% for x in l %}{% filter upper %}a{% continue %}b{% endfilter %}{{ x }}{% endfor %}!",
    "{% break %}",
    "{% for x in l %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for loop in l %}{{ loop }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for n in [{'v': 1, 'c': [{'v': 2}, {'v': 3, 'c': [{'v': 4}]}]}] recursive %}{{ n.v }}{% if n.c %}[{{ loop(n.c) }}]{% endif %}{% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for i in l %}{% if i == 1 %}{% set x = 9 %}{% endif %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}{% set x, y = y, x %}{{ x }}{{ y }}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ i }}b{% endset %}[{{ x }}]",
    "{% set x | upper | replace('A', 'z') %}a{{ i }}b{% endset %}[{{ x }}]",
    "{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}",
    "{% set ns = namespace(a=0) %}{% for x in l %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace() %}{% set ns.x %}block{% endset %}{{ ns.x }}",
    "{% set ns = namespace(a=[]) %}{% for x in l %}{% set ns.a = ns.a + [x * 2] %}{% endfor %}{{ ns.a }}",
    "{% set d.x = 1 %}",
    "{% set zz.x = 1 %}",
    "{% set none = 1 %}",
    "{% set 5 = 1 %}",
    "{% set a.b.c = 1 %}",
    "{% set x = %}",
    "{% macro f(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ f(1) }}{{ f(1, 2, 3) }}{{ f(c=1, a=2) }}{{ f() }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}",
    "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}",
    "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 2) }}",
    "{% macro f(a=1, b) %}{% endmacro %}",
    "{% macro f(a, a) %}{% endmacro %}",
    "{% macro f(x) %}{{ x }}{% if x > 0 %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f() %}{{ later }}{% endmacro %}{% set later = 5 %}{{ f() }}",
    "{% set a = 1 %}{% macro f() %}{% set a = 2 %}{{ a }}{% endmacro %}{{ f() }}{{ a }}",
    "{% macro f() %}{{ i }}{% endmacro %}{% for i in l %}{{ f() }}{% endfor %}",
    "{% for x in l %}{% macro f() %}{{ x }}{{ loop.index }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f() %}x{% endmacro %}{{ f }}",
    "{% macro f(a, b=1) %}x{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}{{ f.catch_varargs }}{{ f.caller }}",
    "{% macro f() %}x{% endmacro %}{{ f() | upper }}{{ f()|length }}{{ f() is string }}",
    "{% macro f() %}\n  a\n{% endmacro %}[{{ f() }}]",
    "{% macro f() -%}\n  a\n{%- endmacro %}[{{ f() }}]",
    "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}in{% endcall %}",
    "{% macro f() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b=3) f() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro f() %}[{{ caller() if caller else 'none' }}]{% endmacro %}{{ f() }}{% call f() %}x{% endcall %}",
    "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}",
    "{% macro f(caller) %}{{ caller() }}{% endmacro %}",
    "{% call 5 %}x{% endcall %}",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}<{{ caller() }}>{% endcall %}{% endmacro %}{% call g() %}x{% endcall %}",
    "{% filter upper %}a{{ s }}{% endfilter %}",
    "{% filter upper | replace('A', 'b') %}a{{ 1 }}{% endfilter %}",
    "{% filter indent(width=2) %}a\nb{% endfilter %}",
    "{% filter nosuch %}a{% endfilter %}",
    "{% with a = 1, b = i %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a }}",
    "{% with a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% endwith %}",
    "{% raw %}{{ x }}{% if %}{# c #}{% endraw %}",
    "a {%- raw %} b {% endraw -%} c",
    "{% raw -%}  b  {%- endraw %}",
    "{% raw %}\n x\n{% endraw %}\ny",
    "{% raw %}",
    "{# c #}a{#- c -#} b {# {{ x }} {% y %} #}c",
    "a\n{# c #}\nb",
    "a\n  {# c #}\nb",
    "  {# c #}  x",
    "a\n\n{% if yes %}\nb\n{% endif %}\n\nc",
    "a\n  {% if yes %}  \nb\n  {% endif %}\nc",
    "a\n  {%+ if yes %}\nb\n  {%+ endif +%}\nc",
    "a\n  {%- if yes -%}\nb\n  {%- endif -%}\nc",
    "a \t{% if yes %}b{% endif %} \t c",
    "{% if yes %}\n\n\na{% endif %}",
    "{{ 1 }}\n{{ 2 }}\n",
    "{{ 1 }}\n\n",
    "  {{ 1 }}  \n  {{- 2 -}}  \n  3",
    "{{- 1 }} {{ 2 -}} ",
    "x {{+ 1 }}",
    "x {{ 1 +}}",
    "a\r\nb\r{% if yes %}\r\nc{% endif %}\r\n",
    "{%- set a = 1 -%}\n\n{{- a -}}\n",
    "   {%- set a = 1 %}   b",
    "{% set a = 1 %}   \n   {% set b = 2 %}\n{{ a }}{{ b }}",
    "{% set a = '{{' %}{{ a }}{{ '}}' }}{{ '%}' }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {} }}",
    "{{ '{{' }}{{ '{%' }}{{ '{#' }}",
    "{ {% if yes %}{{ '}' }}{% endif %} }",
    "{{",
    "{{ }}",
    "{% %}",
    "{% if %}{% endif %}",
    "{% if yes %}",
    "{% endif %}",
    "{% for %}{% endfor %}",
    "{% for x l %}{% endfor %}",
    "{% for x in l %}{% endif %}",
    "{% else %}",
    "{% unknown %}",
    "{{ 1 }",
    "{{ 1 %}",
    "{# never closed",
    "{{ 'never closed }}",
    "{{ ) }}",
    "{{ a b }}",
    "{{ 1 | }}",
    "{{ | upper }}",
    "{{ a is }}",
    "{{ not }}",
    "{{ a if }}",
    "{{ a ? b }}",
    "{{ a && b }}",
    "{{ $a }}",
    "{{ @ }}",
    "{% set x = 1 if no %}[{{ x }}]",
    "{% set x = zz %}{{ x is defined }}",
    "{% block a %}x{{ i }}{% endblock %}",
    "{% block a %}x{% endblock a %}",
    "{% block a %}x{% endblock %}{% block a %}y{% endblock %}",
    "{% for x in l %}{% block a %}{{ x }}{% endblock %}{% endfor %}",
    "{% for x in l %}{% block a scoped %}{{ x }}{% endblock %}{% endfor %}",
    "{% set q = 3 %}{% block a %}{{ q }}{% endblock %}",
    "{% autoescape false %}{{ html }}{% endautoescape %}",
    "{% print 1, 2 %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% do l.append(1) %}",
    "{% generation %}a{{ i }}{% endgeneration %}b",
    "{%- generation -%}\n a \n{%- endgeneration -%}\nb",
    "{% generation %}{% set a = 1 %}{% endgeneration %}{{ a }}",
    "{% for x in l %}{% generation %}{{ x }}{% endgeneration %}{% endfor %}",
    "{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set m = l | map('string') %}{{ m | list }}{{ m | list }}",
    "{% set m = l | map('string') %}{% for x in m %}{{ x }}{% endfor %}{% for x in m %}{{ x }}{% else %}gone{% endfor %}",
    "{% set m = l | select('nosuch') %}fine",
    "{% set m = [1, 'a', 2] | map('abs') %}{{ m | first }}",
    "{% set r = l | reverse %}{{ r | first }}{{ r | first }}",
    "{% set up = s.upper %}{{ up() }}",
    "{% set f = range %}{{ f(2) | list }}",
    "{% if 'nope' is filter %}{{ 1 | nope }}{% else %}no{% endif %}",
    "{% if yes %}{{ 1 | nope }}{% endif %}",
    "{% set m = 5 | map('upper') %}{% set n = 5 | unique %}lazy",
    "{% if yes %}{% for x in l %}{{ x | nope }}{% endfor %}{% endif %}",
    "{{ (1 | nope) if no else 2 }}",
    "{% if no %}{{ 1 is nope }}{% endif %}ok",
    "{% if no %}{{ 1 / 0 }}{% endif %}ok",
    "{% for x in l %}{% if loop.first %}[{% endif %}{{ x }}{% if not loop.last %}, {% else %}]{% endif %}{% endfor %}",
    "{% for a in l %}{% for b in l %}{{ loop.index }}{{ loop.first }}{% endfor %}|{{ loop.index }}{% endfor %}",
    "{% for x in range(3) %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% for x in l %}{% endfor %}{{ x is defined }}",
    "{% for i in l %}{{ i }}{% endfor %}{{ i }}",
    "{% set l = l + [4] %}{{ l }}",
    "{% for x in l %}{% set l = [] %}{{ x }}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for o in objs if not ns.found %}{% if o.ok %}{% set ns.found = true %}{% endif %}{{ o.n }}{% endfor %}",
    "{% for g, items in objs | groupby('g') %}{{ g }}:{{ items | map(attribute='n') | join }};{% endfor %}",
    "{% for g in objs | groupby('g') %}{{ g.grouper }}{{ g.list | length }}{{ g[0] }}{% endfor %}",
    "{% for x in l %}{% if loop.index is divisibleby 2 %}{{ x }}{% endif %}{% endfor %}",
    "{% for row in l | batch(2, 0) %}{{ row | join('-') }};{% endfor %}",
    "{% for c in u %}{{ c }}|{% endfor %}",
    "{% set a = [1, 2, 3] %}{{ a[0] }}{% set a = a[1:] %}{{ a }}",
    "{{ loop.index }}",
    "{% set x = {'a': 1} %}{{ x.a }}{{ x['a'] }}{{ x.get('a') }}{{ x.b }}",
    "{%for x in l%}{{x}}{%endfor%}",
    "{%-for x in l-%} {{x}} {%-endfor-%}",
    "{{1}}{{'a'}}{{l[0]}}{{d.k}}",
    "{%if yes%}a{%else%}b{%endif%}",
    "{% if not zz is defined %}a{% endif %}{% if zz is not defined %}b{% endif %}",
    "{% if (l | length) > 2 and l[0] == 3 %}a{% endif %}",
    "{% if d.k is defined and d.k is not none and d.k | length > 0 %}a{% endif %}",
    "{% set content = none %}{{ content or '' }}{{ content if content is not none else 'x' }}",
    "{% set t = '<think>a</think>b' %}{{ t.split('</think>')[-1] }}{{ t.split('</think>')[0].split('<think>')[-1] }}",
    "{% set t = '\\n\\nx\\n\\n' %}[{{ t.strip('\\n') }}][{{ t.lstrip('\\n') }}][{{ t.rstrip('\\n') }}]",
    "{{ 'a\\nb' }}\n{{ \"a\\tb\" }}",
    "{{ raise_exception('bad ' ~ s) }}",
    "{{ '<' ~ 'b' }}{{ html }}",
    "{% for m in [] %}{% else %}{% for m in l %}{{ m }}{% endfor %}{% endfor %}",
    "a{% if yes -%}   b   {%- endif %}c",
    "{% set x -%}   b   {%- endset %}[{{ x }}]",
    "\n\n  {%- if yes %}x{% endif %}",
    "{{ '' }}\n  {% if yes %}\n  x\n  {% endif %}\n  y",
    "{% if yes %}{# c #}\n{% endif %}z",
    "x{# c #}\n{{ 1 }}\n{#- c -#}\n y",
    "{% if yes %} {% endif %}|{% if yes %}\t{% endif %}|",
    "é{% if yes %}你{% endif %}\u2028{{ u }}",
    "\u00a0{%- if yes %}x{% endif -%}\u3000y",
    "{{ l|join(', ')|upper }}|{{ l | join( ', ' ) }}",
    "{{ namespace(a=1, **{'b': 2}).b }}",
    "{% set ns = namespace(a=1) %}{{ ns }}{{ ns.a is defined }}{{ ns.b is defined }}{{ ns.b }}",
    "{% macro f(x) %}{% if x is mapping %}{% for k, v in x | dictsort %}{{ k }}:{{ f(v) }},{% endfor %}{% elif x is string %}{{ x | tojson }}{% elif x is iterable %}[{% for y in x %}{{ f(y) }}{% endfor %}]{% else %}{{ x }}{% endif %}{% endmacro %}{{ f(d) }}",
]

# Not deterministic (an address in a repr), or without a counterpart on purpose: pprint, whole numbers
# beyond 64 bits, `self`.
SKIPPED = {
    "l | reverse",
    "true | map('upper')",
    "l | map('string')[0]",
    "d | pprint",
    "'abc'.upper",
    "lipsum is defined",
    "i.bit_length",
    "f.is_integer",
    "i.real",
    "s.encode",
    "d.items",
    "self",
    "big ~ ' ' ~ big | int",
}


def snippets():
    for line in EXPRESSIONS.strip().split("\n"):
        if line not in SKIPPED:
            yield "{{ " + line + " }}"
    for template in STATEMENTS:
        yield template
