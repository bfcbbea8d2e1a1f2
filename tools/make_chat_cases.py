#!/usr/bin/env python3
"""Writes tests/text/chat_cases.json: templates, what they are given, and what Python's jinja2 makes of them.

    pip install jinja2
    tools/make_chat_cases.py

The environment is the one in which transformers runs chat templates. A case is {"name", "template" or "file" (in
tests/text/templates), "messages", "add_generation_prompt", "tools", "variables", "expected"}, or has "error" in place of "expected".
"""
import json
import os

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "tests", "text", "chat_cases.json")
FILES = os.path.join(HERE, "..", "tests", "text", "templates")

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI "
    "assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

USER = {"role": "user", "content": "What is the capital of France?"}
TURNS = [USER, {"role": "assistant", "content": "Paris.\n"}, {"role": "user", "content": "  And of Japan? \u6771\u4eac \U0001f600 \"q\" 'a' <b> & \\n  "}]
SYSTEM = [{"role": "system", "content": "Be brief."}] + TURNS
PARTS = [{"role": "user", "content": [{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "what is it?"}]}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather of a \"city\" <now> \u00e9", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}, "ratio": {"type": ["number", "null"]}}, "required": ["city"]}}}]
CALLS = [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {
    "name": "weather", "arguments": {"city": "Paris", "days": 2, "deep": {"a": [1, 2.5, True, None, "x"]}}}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]

# A longer talk: text beside the calls, two calls of one turn, thoughts, an id as Mistral wants it, arguments as text.
ANSWERED = [SYSTEM[0], USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {
    "name": "weather", "arguments": {"city": "Paris"}}}]}, {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is sunny."}, {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": "<think>\nso\n</think>\n\nYes."}]
TWO_CALLS = [USER, {"role": "assistant", "content": "Both:", "tool_calls": [{"id": f"abcdefgh{i}", "type": "function", "function": {
    "name": "weather", "arguments": {"city": city}}} for i, city in enumerate(("Paris", "Rome"))]},
    {"role": "tool", "tool_call_id": "abcdefgh0", "content": "sunny"}, {"role": "tool", "tool_call_id": "abcdefgh1", "content": "rain"}]

# One expression or statement a line; each is a case of its own, given TURNS.
SMALL = r"""
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }}
{{ 1.5 }} {{ 1e20 }} {{ 1e-5 }} {{ 0.0001 }} {{ 100000000000000000.0 }} {{ 3.0 }} {{ 1/3 }} {{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e2 }}
{{ true }} {{ false }} {{ none }} {{ True }} {{ None }} {{ [1, 'a', none, true, 2.0] }} {{ (1,) }} {{ (1, 2) }} {{ {'a': 1, 'b': [1]} }} {{ () }} {{ [] }} {{ {} }}
{{ "it's" }} {{ ["it's", 'say "x"', "both ' and \"", "tab\t\n\\", "é\u200b\x07"] }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ missing }} {{ 'ab' * 3 }} {{ 2 * 'x' }} {{ [1] * 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 'con' 'cat' }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' != 'b' }} {{ 1 == true }} {{ none == false }} {{ (1, 2) == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }}
{{ 'a' in 'abc' }} {{ 'a' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in messages[0] }} {{ 'x' in missing }} {{ missing in [1] }} {{ 3 not in (1, 2) }}
{{ not true }} {{ not 1 == 2 }} {{ true and 0 }} {{ '' or 'x' }} {{ 0 or [] or 'z' }} {{ 1 and 'y' }} {{ not not 1 }} {{ true or false and false }}
{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 }}| {{ 'a' if 0 else 'b' if 0 else 'c' }} {{ ('x' if true else 'y') + 'z' }}
{{ messages[0].role }} {{ messages[-1]['role'] }} {{ messages[5] }}| {{ messages[0]['nope'] }}| {{ messages|length }} {{ messages[1:]|length }} {{ messages[::-1][0].role }}
{{ 'hello'[1] }} {{ 'hello'[-1] }} {{ 'hello'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[:-1] }} {{ 'hello'[::2] }} {{ 'hello'[10:] }}| {{ [1,2,3][1:] }} {{ (1,2,3)[:2] }} {{ [1,2,3,4][-3:-1] }} {{ [1,2,3][::-2] }}
{{ 'héllo wörld 世界'|length }} {{ 'héllo'[1] }} {{ '世界人'[1:] }} {{ '世界'[::-1] }} {{ 'straße'|upper }} {{ 'ÉCOLE'|lower }}
{{ 'a' is string }} {{ 1 is number }} {{ true is number }} {{ true is boolean }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ none is none }} {{ x is defined }} {{ x is undefined }} {{ x is not defined }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ {} is mapping }} {{ [] is mapping }} {{ [] is sequence }} {{ {} is sequence }} {{ 'a' is sequence }} {{ x is iterable }} {{ x is sequence }} {{ x is mapping }} {{ x is none }} {{ x is string }}
{{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'a' is in 'abc' }} {{ 1 is eq 1 }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 1 is lt 1 }} {{ 1 is le 1 }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'Abc' is lower }} {{ 'a1' is lower }} {{ '1' is lower }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ none is sameas none }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 1 is not string }} {{ 1 is equalto 1 and 2 is number }}
{{ '  x '|trim }}| {{ '--x--'|trim('-') }} {{ ' x '.strip() }}| {{ ' x '.lstrip() }}| {{ ' x '.rstrip() }}| {{ 'xxayx'.strip('xy') }} {{ '\n\n a \n'.strip('\n') }}| {{ '\u2003a\u00a0'|trim }}|
{{ 'a-b-c'.split('-') }} {{ ' a  b '.split() }} {{ 'a-b-c'.split('-', 1) }} {{ 'a-b-c'.rsplit('-', 1) }} {{ ' a b  c '.split(none, 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split('x') }} {{ 'a</think>b'.split('</think>')[-1] }} {{ 'axbxc'.partition('x') }} {{ 'axbxc'.rpartition('x') }} {{ 'abc'.partition('x') }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ 'a\nb\n'.splitlines(true) }}
{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'ab')) }} {{ 'abc'.replace('b', 'XX') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ ''.replace('', '-') }} {{ 'abc'|replace('a', 1) }} {{ 'abab'.replace('ab', '') }}
{{ 'aBc dEf'.upper() }} {{ 'aBc'.lower() }} {{ "they're bill's friends".title() }} {{ "they're bill-s (friends)"|title }} {{ 'hELLO wORLD'|capitalize }} {{ 'hELLO'.capitalize() }} {{ 'a,b'.join(['x', 'y']) }} {{ 'abcabc'.find('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.rfind('c') }} {{ 'é世a'.find('a') }} {{ 'abcabc'.count('bc') }} {{ 'abc'.index('c') }} {{ 'abcabc'.find('a', 1) }} {{ 'abcabc'.find('c', 3, 5) }}
{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }} {{ ''.isdigit() }} {{ '12'.isnumeric() }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'x'.center(5) }}| {{ 'x'.ljust(3) }}| {{ 'x'.rjust(3, '.') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ '{} and {}'.format(1, 'b') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x} {{}}'.format(x=1) }}
{{ messages[0].keys()|list }} {{ messages[0].values()|list }} {{ messages[0].items()|list }} {{ messages[0].get('role') }} {{ messages[0].get('nope') }} {{ messages[0].get('nope', 'dflt') }} {{ messages[0]|items|list }} {{ {'b': 2, 'a': 1}|dictsort }} {{ {'a': 1, 'b': 0}|dictsort(by='value') }} {{ {'items': 1}['items'] }} {{ {'a': 1}|length }}
{{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A', 'c']|sort(case_sensitive=true) }} {{ [3, 1, 2]|sort(reverse=true) }} {{ messages|sort(attribute='role')|map(attribute='role')|join(',') }} {{ [1, 2, 1]|unique|list }} {{ ['a', 'A']|unique|list }} {{ [1, 2, 3]|sum }} {{ [1, 5, 3]|max }} {{ ['b', 'A']|min }} {{ [1, 2]|first }} {{ [1, 2]|last }} {{ []|first }}| {{ 'abc'|first }} {{ 'abc'|last }} {{ 'abc'|reverse }} {{ [1, 2]|reverse|list }} {{ 'abc'|list }}
{{ messages|map(attribute='role')|list }} {{ ['a', 'b']|map('upper')|join('-') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role', 'eq', 'user')|map(attribute='content')|first }} {{ [1, 2, 3, 4]|select('even')|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ [0, 1, '']|select|list }} {{ messages|selectattr('nope')|list }} {{ messages|map(attribute='nope', default='d')|list }} {{ ['a ', ' b']|map('trim')|list }} {{ ['a', 'b']|map('replace', 'a', 'x')|list }} {{ messages|selectattr('role', 'in', ['assistant', 'tool'])|list|length }} {{ messages|selectattr('content', 'defined')|list|length }}
{{ [1, 2, 3]|join }} {{ [1, 2, 3]|join(', ') }} {{ messages|join('|', attribute='role') }} {{ [1, 2, 3, 4, 5]|batch(2)|list }} {{ [1, 2, 3]|batch(2, 'x')|list }} {{ [1, 2, 3, 4, 5]|slice(2)|list }} {{ [{'k': 'a', 'v': 1}, {'k': 'b', 'v': 2}, {'k': 'a', 'v': 3}]|groupby('k')|length }} {% for k, g in [{'k': 'b', 'v': 1}, {'k': 'a', 'v': 2}, {'k': 'b', 'v': 3}]|groupby('k') %}{{ k }}{{ g|map(attribute='v')|list }}{% endfor %}
{{ missing|default('d') }} {{ none|default('d') }} {{ none|default('d', true) }} {{ ''|d('e', boolean=true) }} {{ missing|default }}| {{ 1|default('x') }} {{ '12'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ ' 3.7 '|int }} {{ '0x1f'|int(base=16) }} {{ 3.99|int }} {{ '3.5'|float }} {{ 'x'|float }} {{ 2|float }} {{ true|int }} {{ none|int }} {{ 5|string }} {{ none|string }} {{ [1]|string }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(method='ceil') }} {{ 2.19|round(1, 'floor') }} {{ 5|round }} {{ -3|abs }} {{ 3.2|abs }} {{ -1|abs }} {{ 42.55|round|int }} {{ 1234|round(-2) }}
{{ 'a\nb\n\nc'|indent }}| {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(2, blank=true) }} {{ 'a\nb'|indent('> ') }} {{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar'|truncate(5, leeway=0) }} {{ 'foo bar baz'|wordcount }} {{ '<a href="x">\'&'|e }} {{ 'a b/c?d=é'|urlencode }} {{ 'x'|center(7) }}| {{ 'ab'|center(7) }}| {{ 'abc'|center(6) }}|
{{ '%s is %d and %.2f' % ('x', 3, 1.5) }} {{ '%5d|%-5d|%05d' % (1, 2, 3) }} {{ '%s' % 'y' }} {{ '%%' % () }} {{ '%x %X %o' % (255, 255, 8) }} {{ '%(a)s' % {'a': 1} }} {{ '%r' % 'q' }} {{ '%+d % d' % (1, 2) }} {{ '%e %g %G' % (12345.678, 0.00001, 1e20) }} {{ '%c%c' % (65, 'b') }} {{ '%.3s|%10s|%-10s|' % ('abcdef', 'r', 'l') }} {{ '%s %s'|format(1, 2) }} {{ '%(x)s'|format(x='kw') }} {{ '%#x' % 255 }} {{ '%d' % 3.99 }} {{ '%*d' % (5, 42) }}
{{ messages|tojson }} {{ {'a': none, 'b': true, 'c': 1.0, 'd': 1e16, 'e': 'é"\\/\n\t\u0001<>&'}|tojson }} {{ [1, [2, {}], []]|tojson(indent=2) }} {{ {'b': 1, 'a': [1, 2]}|tojson(indent=4, sort_keys=true) }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ {1: 'a', none: 'b', true: 'c', 2.5: 'd'}|tojson }} {{ (1, 2)|tojson }} {{ 'x'|tojson }} {{ none|tojson }} {{ {}|tojson(indent=2) }} {{ {'a': 1}|tojson(indent='\t') }}
{% set x = 1 %}{{ x }}{% set x, y = 2, 3 %}{{ x }}{{ y }}{% set (a, b) = [4, 5] %}{{ a }}{{ b }}{% set z %}block {{ x }}{% endset %}{{ z }}{% set w | upper %}abc{% endset %}{{ w }}{% set t = 1, 2 %}{{ t }}{% set e = [] %}{{ e }}
{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}{{ ns.nope }}|{% set ns2 = namespace({'k': 5}) %}{{ ns2.k }}{% set ns.list = [1] %}{% set ns.list = ns.list + [2] %}{{ ns.list }}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = i + 10 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}
{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %} {% for i in [1, 2, 3, 4] if i is even %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% else %}none{% endfor %} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for c in 'abc' %}[{{ c }}]{% endfor %} {% for k in {'x': 1} %}{{ k }}{% endfor %} {% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for i in missing %}x{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {% for i in range(2, 8, 3) %}{{ i }}{% endfor %} {% for i in range(3, 0, -1) %}{{ i }}{% endfor %} {% for i in range(2) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %} {% for item in [{'n': 'a', 'c': [{'n': 'b', 'c': []}]}] recursive %}{{ loop.depth }}{{ item.n }}[{{ loop(item.c) }}]{% endfor %}
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='y') }} {{ m(b=5, a=0) }} {{ m() }} {{ m(*[7, 8]) }} {{ m(**{'a': 9}) }}
{% macro v(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, 3, k=4) }} {% macro outer(x) %}<{{ caller(x) if caller else 'no' }}>{% endmacro %}{% call(y) outer(5) %}body {{ y }}{% endcall %}{{ outer(1) }}
{% macro fact(n) %}{{ 1 if n <= 1 else n * (fact(n - 1)|int) }}{% endmacro %}{{ fact(5) }} {% set g = 'global' %}{% macro r() %}{{ g }}{% endmacro %}{{ r() }}{% set g = 'later' %}{{ r() }} {% macro d(a, b=a) %}{{ b }}{% endmacro %}{{ d(3) }}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}| {% filter upper %}abc {{ 'd' }}{% endfilter %} {% filter trim|upper %}  x {% endfilter %} {% raw %}{{ not }} {% a %}{% endraw %} {# comment {{ x }} #}|
{{ none|selectattr('a')|list }} {{ none|map('upper')|list }} {% if 0 %}{{ 1|nope }}{{ 1 is nope }}{% endif %} {{ 1 + 2 == 3 and not 2 in [1] or 0 }} {{ 2 - 1 ~ 3 }} {{ not 1 in [2] }}
{% if 1 %}{{ 1|nope }}{% endif %}
{% if 0 %}a{% elif '' %}b{% elif [1] %}c{% else %}d{% endif %} {% if missing %}x{% else %}y{% endif %} {% if none is none and not missing %}z{% endif %}
{{ 'a' if missing is defined else 'b' }} {{ (missing.x is defined) if missing is defined else 'skip' }} {{ (missing|default({})).get('x', 'none') }} {{ messages[0].content.split(' ')[0]|lower }} {{ messages[0]['content'][:4] ~ '...' }} {{ messages | length - 1 }} {{ (messages|last).role }} {{ messages|map(attribute='role')|unique|list|length }}
{{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ dict({'a': 1}, b=2) }} {{ {'a': {'b': 1}}.a.b }} {{ [[1, 2], [3]][0][1] }} {{ messages.0.role }} {{ -2|abs + 1 }} {{ 1 - -1 }} {{ +3 }} {{ 5 - 2 - 1 }} {{ 2 * 3 % 4 }} {{ 'a' ~ 1 * 2 }} {{ 10 / 4 * 2 }}
{{ 1 if true }}{{ '\x41\u00e9\'\"\\\n' }} {{ 'a\
{{ raise_exception('no') }}
{{ missing.x }}
{{ missing() }}
{{ missing + 'a' }}
{{ 'a' + 1 }}
{{ none + 'a' }}
{{ 1 in 'abc' }}
{{ none|length }}
{{ 1|tojson|nope }}
{{ 1 is nope }}
{% if x %}
{{ x
{% endif %}
{{ 1 // 0 }}
{{ 'a' < 1 }}
{% set a.b = 1 %}
{% for a, b in [[1, 2, 3]] %}{% endfor %}
{{ [].append(1) }}
{{ range(1000000)|length }}
{{ namespace(_a=1) }}
{{ missing|tojson }}
{{ {[1]: 2} }}
{{ ''.__class__ }}|
{{ (1).__class__.__mro__ }}
{{ [1, 2](3) }}
{{ 'x'.split('') }}
{{ '%d' % 'x' }}
{{ '%s %s' % 'x' }}
{{ m(1) }}{% macro m(a) %}{% endmacro %}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% break %}
{{ loop.index }}
{{ 1 2 }}
{{ }}
{{ 'a }}
{{ (1 }}
{{ ] }}
{% for %}{% endfor %}
{% set %}
"""

# Whitespace control: trim_blocks and lstrip_blocks, and the signs.
SPACES = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}  \n  b\n  {% endif %}\n  c", "  {{ 1 }}\n  {{ 2 }}  \n", "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "a\n  {%+ if true %}\nb{% endif +%}\nc", "x {# c #}\ny\n  {# d #}\nz\n  {#- e -#}  \nw", "{% if true %}\n\n{% endif %}\n\nx\n\n", "\n\n{{ 1 }}\n\n", "a\r\n{% if true %}\r\nb\r{% endif %}\r\nc",
    "  {%- raw -%}  {{ x }}  {%- endraw -%}  y", "  {% raw %}\n  {{ x }}\n  {% endraw %}\n  y", "{{ '{{' }}{{ '}}' }}{{ {'a': {'b': 1}} }}", "a{{- 1 -}} b", "a {{- 1 }} b", "{%- for i in [1,2] %}\n  {{- i }}\n{%- endfor %}\n",
    "a\n\t {% set x = 1 %}\nb", "a {% set x = 1 %} b", "\u3000{% set x = 1 %}b\n\u3000{% set x = 1 %}\nc", "{% for i in [1,2] -%}\n   {{ i }}\n{% endfor %}end", "{#a#}\n{#b#}\nc\n", "text only\n", "", "\n", "{{ 'multi\nline' }}", "a\n{%- set x = 1 %}\n{%- set y = 2 %}\n\nb", "{{ 1 }}\n", "{% if 1 %}a{% endif %}\n", "{ { % } } #} %} }}",
]

# Constructs as published templates use them.
BIGGER = {
    "llama3-like": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "tools": "{%- if tools is not none and tools %}\n    {{- '# Tools\\n' }}\n    {%- for tool in tools %}\n        {{- tool | tojson(indent=4) }}\n        {{- \"\\n\\n\" }}\n        {%- for name, p in tool.function.parameters.properties|items %}\n            {{- name ~ ': ' ~ (p.type if p.type is string else p.type | join(' or ')) ~ (' (required)' if name in tool.function.parameters.required else '') ~ '\\n' }}\n        {%- endfor %}\n    {%- endfor %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if message.tool_calls is defined and message.tool_calls %}\n        {%- for tool_call in message.tool_calls %}\n            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}\n            {{- '<tool_call>\\n{\"name\": \"' ~ tool_call.name ~ '\", \"arguments\": ' }}\n            {{- tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson }}\n            {{- '}\\n</tool_call>' }}\n        {%- endfor %}\n    {%- elif message.role == \"tool\" %}\n        {%- if loop.first or (messages[loop.index0 - 1].role != \"tool\") %}{{- '<|im_start|>user' }}{%- endif %}\n        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}\n    {%- else %}\n        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n",
    "thinking": "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == \"user\" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{{- ns.last_query_index }}\n{%- for message in messages %}\n  {%- if '</think>' in (message.content or '') %}{{- message.content.split('</think>')[-1].lstrip('\\n') }}{%- endif %}\n  {%- if loop.last or (not loop.last and loop.nextitem.role == 'user') %}[{{ loop.index0 }}]{%- endif %}\n{%- endfor %}\n{%- if enable_thinking is defined and enable_thinking is false %}\n    {{- '<think>\\n\\n</think>\\n\\n' }}\n{%- endif %}",
    "macro-types": "{%- macro render(spec, depth=0) -%}{%- if spec.type == 'object' -%}{{ '{' }}{%- for key, value in spec.properties|items -%}{{ key }}: {{ render(value, depth + 1) }}{{ ', ' if not loop.last }}{%- endfor -%}{{ '}' }}{%- elif spec.type is string -%}{{ spec.type|upper }}{%- else -%}{{ spec.type|map('upper')|join('|') }}{%- endif -%}{%- endmacro -%}{%- for tool in tools or [] -%}{{ tool['function']['name'] }}({{ render(tool['function']['parameters']) }}){%- endfor -%}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
}


def environment():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def namespace(*args, **values):
        given = dict(*args, **values)
        if any(name.startswith("_") for name in given):
            raise jinja2.exceptions.SecurityError("underscore")
        return jinja2.utils.Namespace(given)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, namespace=namespace)
    return env


def case(env, name, template, messages, tools=None, add_generation_prompt=True, **variables):
    record = {"name": name, "template": template, "messages": messages, "add_generation_prompt": add_generation_prompt, "tools": tools, "variables": variables}
    try:
        record["expected"] = env.from_string(template).render(
            messages=json.loads(json.dumps(messages)), tools=tools, documents=None, add_generation_prompt=add_generation_prompt, bos_token="<bos>", eos_token="<eos>", **variables)
    except Exception as error:  # Whatever Python raises is a refusal.
        record["error"] = f"{type(error).__name__}: {error}"
    return record


def published(env):
    """The templates of well-known models, each with every kind of talk."""
    talks = {"one": [USER], "turns": TURNS, "system": SYSTEM, "calls": CALLS, "answered": ANSWERED, "two-calls": TWO_CALLS}
    for file in sorted(os.listdir(FILES)):
        with open(os.path.join(FILES, file), encoding="utf-8") as stream:
            template = stream.read()
        for talk, messages in talks.items():
            for tools in (None, TOOLS):
                for prompt in (True, False):
                    name = f"{file.removesuffix('.jinja')}-{talk}-{'tools' if tools else 'plain'}-{prompt}"
                    record = case(env, name, template, messages, tools, add_generation_prompt=prompt, date_string="26 Jul 2024")
                    del record["template"]
                    yield {"file": file, **record}


def main():
    env = environment()
    cases = list(published(env))
    for prompt in (True, False):
        for chat, messages in (("turns", TURNS), ("system", SYSTEM), ("one", [USER])):
            for name, template in (("smollm2", SMOLLM2), ("gemma3", GEMMA3)):
                cases.append(case(env, f"{name}-{chat}-{prompt}", template, messages, add_generation_prompt=prompt))
    cases.append(case(env, "gemma3-parts", GEMMA3, PARTS))
    cases.append(case(env, "gemma3-roles-do-not-alternate", GEMMA3, [USER, USER]))
    cases.append(case(env, "gemma3-content-none", GEMMA3, [{"role": "user", "content": None}]))
    cases.append(case(env, "smollm2-content-none", SMOLLM2, [{"role": "user", "content": None}]))
    for name, template in BIGGER.items():
        for chat, messages in (("turns", TURNS), ("calls", CALLS)):
            for tools in (None, TOOLS):
                cases.append(case(env, f"{name}-{chat}-{'tools' if tools else 'plain'}", template, messages, tools, enable_thinking=False))
    for i, line in enumerate(SMALL.strip().split("\n")):
        cases.append(case(env, f"small-{i}", line.replace("\\\n", "\n"), TURNS))
    for i, template in enumerate(SPACES):
        cases.append(case(env, f"spaces-{i}", template, TURNS))
    with open(OUT, "w", encoding="utf-8") as out:
        out.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
    print(f"{len(cases)} cases, {sum('error' in c for c in cases)} of them refusals")


if __name__ == "__main__":
    main()
